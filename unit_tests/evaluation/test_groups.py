"""Groups of images in a table, and summaries by group."""

import pandas as pd
import pytest

from cellbundle.errors import ConfigError
from cellbundle.evaluation import read_groups, summarise
from cellbundle.io.table import write_csv


def test_a_table_without_images_or_scores_has_no_summary():
    assert summarise(pd.DataFrame(columns=["image", "group"])) == {}
    with pytest.raises(KeyError, match="n_true"):
        summarise(pd.DataFrame([{"image": "a", "group": "g"}]))


def test_read_groups(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("id,modality,stain\n001,NA,x\nb,phase,\nb,phase,y\n", encoding="utf-8-sig")
    assert read_groups(path) == {"001": "NA", "b": "phase"}
    assert read_groups(path, "stain") == {"001": "x", "b": "y"}


def test_apostrophes_of_our_own_tables_are_removed(tmp_path):
    write_csv(tmp_path / "groups.csv", pd.DataFrame({"id": ["=a", "'=a", "-5"], "modality": ["+x", "y", "z"]}))
    assert read_groups(tmp_path / "groups.csv") == {"=a": "+x", "'=a": "y", "-5": "z"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"groups\.csv.*CSV"),
        ("a,b\n1,2\n", "no column 'id'.* a, b"),
        ("id,b\n1,2\n", "no column 'modality'.* id, b"),
        ("id,modality\na,x\na,y\n", "'a' .*modality"),
    ],
)
def test_bad_groups(tmp_path, content, message):
    path = tmp_path / "groups.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_groups(path)
    with pytest.raises(ConfigError, match=r"other\.csv.*No such file"):
        read_groups(tmp_path / "other.csv")
