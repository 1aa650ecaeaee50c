"""The link between ``InstanceScores`` and MONAI's engines."""

from collections.abc import Callable, Sequence
from typing import Any

from ignite.engine import Engine
from ignite.metrics.metric import reinit__is_reduced
from monai.handlers.ignite_metric import IgniteMetricHandler

from .accumulate import InstanceScores

LOGGED = ("ap50", "ap75", "precision50", "recall50", "f150", "pq")


class InstanceScoresHandler(IgniteMetricHandler):
    """Computes ``InstanceScores`` in an engine; usable as MONAI's key metric.

    ``engine.state.metrics`` gets the score ``key`` of ``summary`` under the name of the metric, and the ``logged`` ones
    under their own. The plain ``IgniteMetricHandler`` gives engines the whole nested result: no key metric then, and
    MONAI's loggers flatten it so that pooled and mean values overwrite each other. ``metric_fn.aggregate()`` still
    gives the whole result after the run.

    Args:
        metric_fn: the metric.
        output_transform: from ``engine.state.output`` to ``(predictions, labels)`` or ``(predictions, labels,
            indices)``, for example ``monai.handlers.from_engine(["pred", "label", "index"])``.
        key: name of the score to compare epochs by.
        logged: names of further scores to log.
        summary: ``per_image_mean`` or ``pooled``, see ``pool``.
    """

    def __init__(
        self,
        metric_fn: InstanceScores,
        output_transform: Callable[[Any], Any],
        key: str = "ap_mean",
        logged: Sequence[str] = LOGGED,
        summary: str = "per_image_mean",
    ) -> None:
        super().__init__(metric_fn=metric_fn, output_transform=output_transform)
        self.key = key
        self.logged = tuple(logged)
        self.summary = summary

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Add a batch: predictions, labels and, if given, indices; an empty batch (a failed image) adds nothing."""
        y_pred, y, *index = output
        if len(y_pred):
            self.metric_fn(y_pred, y, index=index[0] if index else None)

    def completed(self, engine: Engine, name: str) -> None:
        """Put the scores into ``engine.state.metrics``."""
        scores = self.compute()[self.summary]
        engine.state.metrics.update({score: scores[score] for score in self.logged})
        engine.state.metrics[name] = scores[self.key]
