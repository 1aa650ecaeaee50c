"""From the scores of an evaluator to an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..evaluation import KEY_COLUMNS, Evaluation, summarise
from ..metrics import InstanceScores


def build_evaluation(metric: InstanceScores, entries: Sequence[Mapping[str, Any]]) -> Evaluation:
    """Scores of the single images, grouped by data list.

    Args:
        metric: after a run over ``entries``; call in all processes.
        entries: the data, in the order of their index.
    """
    rows = [
        {"image": str(entries[i]["image"]), "group": entries[i].get("datalist_name", ""), **scores}
        for i, scores in metric.images().items()
    ]
    table = pd.DataFrame(rows, columns=None if rows else list(KEY_COLUMNS))
    return Evaluation(table, summarise(table), [])
