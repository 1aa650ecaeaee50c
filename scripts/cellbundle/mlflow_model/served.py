"""The model that MLflow serves. MLflow copies this file into the model and runs it there, so it imports absolutely."""

import logging
import threading
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from cellbundle.errors import CellBundleError
from cellbundle.inference.predictor import Predictor
from cellbundle.io import read_image
from cellbundle.mlflow_model.answer import describe_labels, read_encoded

logger = logging.getLogger(__name__)


class ServedBundle(PythonModel):
    """A bundle that answers images with label maps, one image at a time."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle, and use it once: the first image waits for kernels that are compiled."""
        self.options = dict(context.model_config)
        self.predictor = Predictor(context.artifacts["bundle"], device=self.options["device"])
        self.predictor.segment(read_image(Path(context.artifacts["bundle"], "docs", "example.png")).data)
        self.lock = threading.Lock()  # the server answers in several threads; memory is planned for one image

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Segment images.

        Args:
            context: not used; ``load_context`` has read it.
            model_input: a row for each image, column ``image`` as in ``answer.read_encoded``.
            params: ``format`` of the label maps, see ``answer.describe_labels``.

        Returns:
            A row for each image: ``labels``, ``shape``, ``n``.

        Raises:
            MlflowException: which becomes HTTP 400 for an image that cannot be used, and 500 for all else; the message
                never shows what is on this machine.
        """
        form = (params or {}).get("format", "png")
        return pd.DataFrame([self._answer(i, text, form) for i, text in enumerate(model_input["image"])])

    def _answer(self, number: int, text: Any, form: str) -> dict[str, Any]:
        try:
            image = read_encoded(text, self.options["max_pixels"])
            with self.lock:
                labels = self.predictor.segment(image).labels
            return describe_labels(labels, form)
        except CellBundleError as error:
            raise MlflowException(f"image {number}: {error}", INVALID_PARAMETER_VALUE) from None
        except Exception:
            logger.exception("image %d failed", number)
            raise MlflowException(f"image {number} failed; the log of the server says why", INTERNAL_ERROR) from None


set_model(ServedBundle())
