"""cellbundle: the shared core of MONAI bundles for 2-D cell and nucleus instance segmentation."""

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .instances import Instances

__all__ = ["__version__", "predict"]


def predict(image: Any, bundle: str = "cell_unet", **options: Any) -> "Instances":
    """Segment one image, an array or a file: see ``cellbundle.inference.predictor.predict``."""
    from .inference.predictor import predict as run  # noqa: PLC0415  (PyTorch takes seconds to import)

    return run(image, bundle, **options)
