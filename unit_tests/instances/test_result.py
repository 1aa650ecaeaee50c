"""A label map and its table belong together, or they are refused."""

import numpy as np
import pandas as pd
import pytest

from cellbundle.errors import ArrayError
from cellbundle.instances import Instances

LABELS = np.array([[0, 1, 1], [2, 0, 3]], np.int32)


def test_length_is_the_number_of_instances():
    assert len(Instances(LABELS, pd.DataFrame({"label": [1, 2, 3]}), (0.5, 0.5))) == 3
    assert len(Instances(np.zeros((4, 5), np.int32), pd.DataFrame({"label": []}))) == 0
    assert len(Instances(np.zeros((0, 5), np.int32), pd.DataFrame({"label": []}))) == 0


def test_classes_are_text_or_none():
    table = pd.DataFrame({"label": [1, 2, 3]})
    assert Instances(LABELS, table).classes == [None, None, None]
    assert Instances(LABELS, table.assign(**{"class": ["a", None, np.nan]})).classes == ["a", None, None]
    assert Instances(LABELS, table.assign(**{"class": [1, 2, 1]})).classes == ["1", "2", "1"]


@pytest.mark.parametrize(
    ("labels", "table", "message"),
    [
        (LABELS.astype(np.uint16), {"label": [1, 2, 3]}, "int32.*uint16"),
        (LABELS[0], {"label": [1]}, r"2-D integer.*\(3,\)"),
        (-LABELS, {"label": [1, 2, 3]}, "negative"),
        (LABELS, {"id": [1, 2, 3]}, r"'label'.* 1\.\.3.*\['id'\]"),
        (LABELS, {"label": [1, 3, 2]}, r"'label'.* 1\.\.3.*\['label'\]"),
        (LABELS, {"label": [1, 2]}, "3 ids.* 2 rows"),
        (LABELS, {"label": [1, 2, 3, 4]}, "3 ids.* 4 rows"),
        (np.where(LABELS == 2, 0, LABELS), {"label": [1, 2, 3]}, r"1\.\.3.*no pixel of 2"),
    ],
)
def test_what_does_not_belong_together_is_refused(labels, table, message):
    with pytest.raises(ArrayError, match=message):
        Instances(labels, pd.DataFrame(table))
