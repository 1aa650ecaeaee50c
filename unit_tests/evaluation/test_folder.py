"""Scores of predictions in files: exact numbers, failures, groups, report files."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from cellbundle.errors import ConfigError, DatalistError
from cellbundle.evaluation import (
    REPORT_FILES,
    check_report_folder,
    evaluate_folder,
    format_report,
    read_groups,
    report_content,
    write_evaluation,
    write_report,
)
from cellbundle.io import write_labels

from ..damage import damaged, fifo
from ..words import Like

TRUE = np.zeros((8, 20), np.int32)
for number in range(4):
    TRUE[1:7, 5 * number : 5 * number + 4] = number + 1  # 24 pixels each
# One exact, one with IoU 20/24 = 0.83, one with IoU 12/24 = 0.5, one missed, and one extra.
PREDICTED = np.zeros_like(TRUE)
PREDICTED[1:7, 0:4], PREDICTED[1:6, 5:9], PREDICTED[1:4, 10:14], PREDICTED[7, 15:18] = 9, 5, 7, 2


class Data:
    """A datalist whose images have the labels ``TRUE``, and a folder of predictions."""

    def __init__(self, folder, names):
        self.folder, self.list, self.predictions = folder, folder / "list.json", folder / "predictions"
        self.entries = [{"image": name, "label": f"labels/{i}.tif"} for i, name in enumerate(names)]
        for entry in self.entries:
            self.write(entry["label"], TRUE)
        self.predictions.mkdir()

    def write(self, name, labels):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, labels)

    def evaluate(self, **options):
        self.list.write_text(json.dumps({"testing": self.entries}))
        return evaluate_folder(self.predictions, self.list, self.folder, **options)


@pytest.fixture
def data(tmp_path):
    """Two images: ``a`` predicted as ``PREDICTED``, ``b`` perfectly."""
    data = Data(tmp_path, ["images/a.png", "images/b.png"])
    data.write("predictions/a_labels.tif", PREDICTED)
    data.write("predictions/b_labels.tif", TRUE)
    return data


def test_exact_scores(data):
    result = data.evaluate()
    assert result.failures == []
    assert list(result.table["image"]) == ["images/a.png", "images/b.png"]
    assert list(result.table["group"]) == ["list", "list"]
    row = result.table.iloc[0]
    assert [row[key] for key in ("n_true", "n_pred", "tp50", "fp50", "fn50")] == [4, 4, 3, 1, 1]
    assert [row[key] for key in ("ap50", "ap75", "ap85", "f150")] == [3 / 5, 2 / 6, 1 / 7, 3 / 4]
    assert row["pq"] == pytest.approx((1 + 20 / 24 + 12 / 24) / 4)
    assert row["dice"] == pytest.approx(2 * 56 / (96 + 59))


def test_summaries(data):
    result = data.evaluate()
    assert list(result.summaries) == ["list", "all"]
    assert result.summaries["list"] == result.summaries["all"]
    summary = result.summaries["all"]
    assert (summary["n_images"], summary["pooled"]["tp50"], summary["pooled"]["fn50"]) == (2, 7, 1)
    assert summary["pooled"]["ap50"] == 7 / 9
    assert summary["per_image_mean"]["ap50"] == pytest.approx((3 / 5 + 1) / 2)


@pytest.mark.parametrize(
    "place",
    [
        "images/x/a_labels.tif",
        "x/a_labels.tif",
        "a_labels.tif",
        "images/x/a_png_labels.tif",
        "x/a_png_labels.tif",
        "a_png_labels.tif",
    ],
)
def test_places_of_a_prediction(tmp_path, place):
    data = Data(tmp_path, ["images/x/a.png"])
    data.write(f"predictions/{place}", TRUE)
    assert list(data.evaluate().table["ap_mean"]) == [1.0]


def test_the_most_specific_place_counts(tmp_path):
    data = Data(tmp_path, ["images/x/a.png"])
    for place, labels in (("images/x/", TRUE), ("x/", PREDICTED), ("", PREDICTED)):
        data.write(f"predictions/{place}a_labels.tif", labels)
    assert list(data.evaluate().table["ap_mean"]) == [1.0]


def test_one_prediction_does_not_serve_two_images(tmp_path):
    data = Data(tmp_path, ["x/a.png", "y/a.png", "a.tif"])
    data.write("predictions/a_labels.tif", TRUE)
    data.write("predictions/x/a_labels.tif", TRUE)
    result = data.evaluate()
    assert list(result.table["image"]) == ["x/a.png"]
    assert [failure.image for failure in result.failures] == ["y/a.png", "a.tif"]
    assert "2 images" in result.failures[0].message


def test_namesakes_with_suffixes(tmp_path):
    data = Data(tmp_path, ["a.png", "a.tif"])
    data.write("predictions/a_png_labels.tif", TRUE)
    data.write("predictions/a_tif_labels.tif", PREDICTED)
    assert list(data.evaluate().table["ap50"]) == [1, 3 / 5]


def break_prediction(data, how):
    path = data.predictions / "a_labels.tif"
    if how == "missing":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:150])
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "binary":
        tifffile.imwrite(path, (PREDICTED > 0).astype(np.uint8) * 255)
    elif how == "size":
        write_labels(path, PREDICTED[:, :-1])
    elif how == "label":
        (data.folder / data.entries[0]["label"]).unlink()
    elif how == "long":
        data.entries[0]["image"] = "x" * 300 + ".png"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"no prediction.*a_labels\.tif"),
        ("folder", r"no prediction.*a_labels\.tif"),
        ("long", "no prediction.*xxx"),
        ("damaged", r"a_labels\.tif.*cannot be decoded"),
        ("binary", r"a_labels\.tif.*binary mask"),
        ("size", r"a_labels\.tif.*8x19"),
        ("label", r"0\.tif.*No such file"),
    ],
)
def test_failures_do_not_stop_the_others(data, how, message):
    break_prediction(data, how)
    result = data.evaluate()
    (failure,) = result.failures
    assert (failure.image, failure.group) == (data.entries[0]["image"], "list")
    assert failure.message == Like(message)
    assert list(result.table["image"]) == ["images/b.png"]
    assert result.summaries["all"]["n_images"] == 1


def test_nothing_scored(data):
    for path in data.predictions.iterdir():
        path.unlink()
    result = data.evaluate()
    assert (len(result.failures), result.summaries, list(result.table.columns)) == (2, {}, ["image", "group"])
    assert report_content(result)["all"] is None
    assert "2 images failed" in format_report(result.summaries, result.failures)
    write_evaluation(result, data.folder / "out", title="nothing")
    assert (data.folder / "out" / "scores.csv").read_text() == "image,group\n"


def test_bad_arguments(data):
    with pytest.raises(ConfigError, match=r"other is not a folder"):
        evaluate_folder(data.folder / "other", data.list, data.folder)
    with pytest.raises(DatalistError, match=r"validation.*fold 0.*list\.json"):
        data.evaluate(split="validation")


def test_split_and_fold(data):
    entries = [entry | {"fold": fold} for fold, entry in enumerate(data.entries)]
    data.list.write_text(json.dumps({"training": entries}))
    result = evaluate_folder(data.predictions, data.list, data.folder, "validation", 1)
    assert list(result.table["image"]) == ["images/b.png"]


def test_groups_by_stem(data):
    result = data.evaluate(groups={"b": "phase", "c": "unused"})
    assert list(result.table["group"]) == ["other", "phase"]
    assert {name: s["per_image_mean"]["ap50"] for name, s in result.summaries.items()} == {
        "other": 3 / 5,
        "phase": 1.0,
        "all": pytest.approx(4 / 5),
    }
    assert list(result.summaries)[-1] == "all"


def test_groups_by_key(data):
    data.entries[0]["modality"] = 7
    assert list(data.evaluate(group_key="modality").table["group"]) == ["7", "other"]


def test_failures_have_groups(data):
    break_prediction(data, "missing")
    assert data.evaluate(groups={"a": "phase"}).failures[0].group == "phase"


def test_group_called_all(data):
    summaries = data.evaluate(groups={"a": "all", "b": "z"}).summaries
    assert [(name, summary["n_images"]) for name, summary in summaries.items()] == [
        ("all (group)", 1),
        ("z", 1),
        ("all", 2),
    ]


def test_progress(data):
    calls = []
    data.evaluate(progress=lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)]


def test_relative_basedir(data, monkeypatch):
    data.evaluate()
    monkeypatch.chdir(data.folder)
    assert list(evaluate_folder("predictions", "list.json", ".").table["image"]) == ["images/a.png", "images/b.png"]


def test_format_report(data):
    break_prediction(data, "missing")
    result = data.evaluate(groups={"b": "a | b\nc"})
    lines = format_report(result.summaries, result.failures).splitlines()
    ones = " | ".join(["1.000"] * 9)
    assert lines[0].startswith("| images | n | ap50 | ap75 |")
    assert lines[2:5] == [f"| a \\| b c | 1 | {ones} |", f"| all | 1 | {ones} |", ""]
    assert "1 image failed" in lines[5]
    assert lines[6] == Like(r"^- images/a\.png.*no prediction")


def no_constants(name):
    raise AssertionError(f"{name} is not JSON")


def test_report_files(data):
    data.write("labels/2.tif", TRUE * 0)
    data.entries += [
        {"image": "images/empty.png", "label": "labels/2.tif"},
        {"image": "c.png", "label": "labels/0.tif"},
    ]
    data.write("predictions/empty_labels.tif", TRUE * 0)
    result = data.evaluate()
    folder = data.folder / "new" / "out"
    write_evaluation(result, folder, title="test", notes=["a note"])
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["report.html", "report.json", "scores.csv"]
    content = json.loads((folder / "report.json").read_text(), parse_constant=no_constants)
    assert content["all"] == content["groups"]["list"]
    assert (content["all"]["n_images"], content["n_failed"]) == (3, 1)
    assert content["failures"][0]["image"] == "c.png"
    frame = pd.read_csv(folder / "scores.csv")
    pd.testing.assert_frame_equal(frame, result.table, check_dtype=False)


def test_names_that_are_not_utf8(data):
    data.entries[0]["image"] = "images/\udcff.png"
    data.write("predictions/\udcff_labels.tif", TRUE)
    result = data.evaluate()
    assert list(result.table["image"]) == ["images/\\udcff.png", "images/b.png"]
    write_evaluation(result, data.folder / "out", title="\udcff")
    for name in ("report.json", "scores.csv", "report.html"):
        (data.folder / "out" / name).read_text(encoding="utf-8")


def test_not_finite_values_are_no_report(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_report({"all": float("nan")}, pd.DataFrame(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["predictions/a_labels.tif", "labels/0.tif"])
def test_fifos_are_failures_and_not_opened(data, name):
    (data.folder / name).unlink()
    with fifo(data.folder / name):
        result = data.evaluate()
    assert [failure.image for failure in result.failures] == ["images/a.png"]
    assert result.failures[0].message == Like("a_labels.tif" if "a_" in name else r"0\.tif.*FIFO")


def test_a_data_list_or_table_that_is_a_fifo_is_refused(data):
    with fifo(data.folder / "groups.csv"), pytest.raises(ConfigError, match=r"groups\.csv.*FIFO"):
        read_groups(data.folder / "groups.csv")
    with fifo(data.list), pytest.raises(DatalistError, match=r"list\.json.*FIFO"):
        evaluate_folder(data.predictions, data.list, data.folder)


@pytest.mark.parametrize("name", REPORT_FILES)
def test_foreign_reports_stay(data, name):
    folder = data.folder / "out"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match=f" {name};.*--replace-foreign"):
        write_evaluation(data.evaluate(), folder, title="test")
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]
    write_evaluation(data.evaluate(), folder, title="test", replace_foreign=True)
    write_evaluation(data.evaluate(), folder, title="test")
    assert (folder / name).read_text() != "mine"


def test_a_damaged_list_of_files_keeps_reports_our_own(data):
    folder = data.folder / "out"
    write_evaluation(data.evaluate(), folder, title="test")
    for content in damaged((folder / ".cellbundle/files.json").read_bytes(), 20):
        (folder / ".cellbundle/files.json").write_bytes(content)
        check_report_folder(folder)
