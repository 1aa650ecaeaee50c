"""Files for challenges: what is in them, that they come back exactly, images in order, failures, several processes."""

import json
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from cellbundle import distributed
from cellbundle.engine.handlers.submissions import ResultFiles, distinct_names
from cellbundle.errors import CellBundleError, ConfigError
from cellbundle.instances.detections import Detections, tighten, to_labels
from cellbundle.instances.painting import paint_rles
from cellbundle.io import read_labels
from cellbundle.io.formats.kaggle import read_kaggle


def detections_of(masks, scores, classes=None):
    """Detections from whole-image masks."""
    cut = [tighten(mask, 0, 0) for mask in masks]
    boxes = np.array([box for _, box in cut], np.int64).reshape(-1, 4)
    kinds = np.ones(len(cut), np.int64) if classes is None else np.array(classes, np.int64)
    return Detections([crop for crop, _ in cut], boxes, np.array(scores, np.float32), kinds, masks.shape[1:])


def random_item(index, n, path, batch=()):
    """An item with n noisy masks that overlap, in images of different sizes."""
    rng = np.random.default_rng(index)
    masks = rng.random((n, 15 + index, 20)) > 0.6
    found = detections_of(masks, rng.random(n), rng.integers(1, 3, n))
    labels, _ = to_labels(found, min_score=0.2, max_overlap=1, min_size=1)
    output = {"index": index, "pred": torch.from_numpy(labels[None]), "detections": found}
    return [{"path": path, **dict(batch)}], [output]


def evaluate(folder, items, **options):
    """Run an engine whose iterations give these pairs of batch and output; the handler."""

    def step(engine, pair):
        engine.state.batch, output = pair
        return output

    engine = Engine(step)
    handler = ResultFiles(folder, **options)
    handler.attach(engine)
    engine.run(items)
    return handler


def test_files_by_hand(tmp_path):
    masks = np.zeros((3, 2, 4), bool)
    masks[0, :, :2], masks[1, 0, 1:3], masks[2, 0, 0] = True, True, True
    found = detections_of(masks, [0.5, 0.75, 0.0625], [2, 1, 1])
    labels = torch.tensor([[[2, 1, 1, 0], [2, 2, 0, 0]]])
    empty = {"index": 7, "pred": torch.zeros(1, 1, 5, dtype=torch.int32), "detections": found.select([])}
    items = [
        ([{"path": "x/b.c.png"}], [{"index": 9, "pred": labels, "detections": found}]),
        ([{"path": "a.tif"}], [empty]),
    ]
    evaluate(tmp_path / "new" / "results", items, class_names=["round", "long"])
    folder = tmp_path / "new" / "results"
    assert sorted(p.name for p in folder.iterdir()) == ["coco_images.json", "coco_results.json", "submission.csv"]
    assert (folder / "submission.csv").read_bytes() == b"idx,id,annotation\n0,a,-1\n1,b.c,2 2\n2,b.c,1 1 5 2\n"
    assert json.loads((folder / "coco_results.json").read_text()) == [
        {"image_id": 9, "category_id": category, "segmentation": {"size": [2, 4], "counts": counts}, **more}
        for category, counts, more in [
            (1, "21102", {"bbox": [1, 0, 2, 1], "score": 0.75}),
            (2, "044", {"bbox": [0, 0, 2, 2], "score": 0.5}),
            (1, "017", {"bbox": [0, 0, 1, 1], "score": 0.0625}),
        ]
    ]
    assert json.loads((folder / "coco_images.json").read_text()) == {
        "images": [
            {"id": 7, "file_name": "a.tif", "height": 1, "width": 5},
            {"id": 9, "file_name": "b.c.png", "height": 2, "width": 4},
        ],
        "categories": [{"id": 1, "name": "round"}, {"id": 2, "name": "long"}],
    }


@pytest.mark.parametrize(("order", "form"), [("row", "kaggle_rows"), ("column", "kaggle")])
def test_the_submission_decodes_to_the_label_maps(tmp_path, order, form):
    items = [random_item(i, n, f"{i}.png") for i, n in enumerate((7, 0, 30))]
    evaluate(tmp_path, items, order=order)
    images = read_kaggle(tmp_path / "submission.csv")
    assert list(images) == ["0", "1", "2"]
    assert images["1"].runs == []
    for (_, (output,)), image in zip(items, images.values(), strict=True):
        labels = output["pred"][0].numpy()
        painted = paint_rles(image.runs, labels.shape, form)
        np.testing.assert_array_equal(painted.labels, labels)
        assert len(image.runs) == labels.max()


def test_pycocotools_reads_the_results_and_would_write_the_same_masks(tmp_path):
    items = [random_item(i, n, f"{i}.png") for i, n in enumerate((7, 0, 150))]
    evaluate(tmp_path, items, class_names=["a", "b"])
    coco = COCO(str(tmp_path / "coco_images.json"))
    results = coco.loadRes(str(tmp_path / "coco_results.json"))
    assert len(results.anns) == 157
    for _, (output,) in items:
        found = output["detections"]
        entries = results.imgToAnns[output["index"]]
        assert [entry["score"] for entry in entries] == found.scores.tolist()
        assert [coco.cats[entry["category_id"]]["name"] for entry in entries] == ["_ab"[k] for k in found.classes]
        for entry, crop, (y0, x0, y1, x1) in zip(entries, found.masks, found.boxes_yxyx, strict=True):
            mask = np.zeros(found.shape, np.uint8, order="F")
            mask[y0:y1, x0:x1] = crop
            rle = coco_mask.encode(mask)
            assert entry["segmentation"] == {"size": rle["size"], "counts": rle["counts"].decode()}
            assert entry["bbox"] == coco_mask.toBbox(rle).tolist()


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([{"image_id": 12, "id": "x"}, {"image_id": 3}], [12, 3]),
        ([{"id": "p"}, {"id": "q"}], ["p", "q"]),
        ([{"id": 5}, {}], [0, 1]),
        ([{"id": 5}, {"id": "q"}], [0, 1]),  # pycocotools cannot sort them
        ([{"id": [5]}, {"id": [6]}], [0, 1]),
        ([{"id": 5}, {"id": 5}], [0, 1]),
    ],
)
def test_image_ids_of_the_data_list(tmp_path, caplog, entries, expected):
    items = [random_item(i, 2, f"{i}.png", entry) for i, entry in enumerate(entries)]
    with caplog.at_level(logging.WARNING):
        evaluate(tmp_path, items)
    results = json.loads((tmp_path / "coco_results.json").read_text())
    assert [entry["image_id"] for entry in results] == [expected[0]] * 2 + [expected[1]] * 2
    listed = json.loads((tmp_path / "coco_images.json").read_text())["images"]
    assert [image["id"] for image in listed] == expected
    assert ("share an id" in caplog.text) == (entries == [{"id": 5}, {"id": 5}])


def test_namesakes_are_told_apart(tmp_path):
    paths = ["/d/x/a.png", "/d/y/a.png", "/d/y/a.tif", "/d/z/y/a.tif", "/d/b.png"]
    names = ["x/a.png", "y/a.png", "d/y/a.tif", "z/y/a.tif", "b"]
    assert distinct_names(paths) == names
    evaluate(tmp_path, [random_item(i, 1, path) for i, path in enumerate(paths)])
    assert list(read_kaggle(tmp_path / "submission.csv")) == names
    listed = json.loads((tmp_path / "coco_images.json").read_text())["images"]
    assert [image["file_name"] for image in listed] == [*names[:4], "b.png"]


def test_an_image_that_is_listed_twice_is_there_once(tmp_path):
    evaluate(tmp_path, [random_item(i, 3, path) for i, path in enumerate(("a.png", "b.png", "a.png"))])
    results = json.loads((tmp_path / "coco_results.json").read_text())
    assert Counter(entry["image_id"] for entry in results) == {0: 3, 1: 3}
    assert list(read_kaggle(tmp_path / "submission.csv")) == ["a", "b"]


def test_a_name_that_is_no_utf_8(tmp_path):
    evaluate(tmp_path, [random_item(0, 1, "a\udcff.png")])
    assert list(read_kaggle(tmp_path / "submission.csv")) == ["a\\udcff"]
    assert json.loads((tmp_path / "coco_images.json").read_text())["images"][0]["file_name"] == "a\\udcff.png"


def test_processes_are_joined(tmp_path, monkeypatch):
    evaluate(tmp_path / "one", [random_item(i, 3, f"{i}.png") for i in range(4)])
    other = ResultFiles(tmp_path)
    for i in (0, 2):
        (batch,), (output,) = random_item(i, 3, f"{i}.png")
        other.images[i] = other._texts({**batch, **output})
    monkeypatch.setattr(distributed, "gather", lambda value: [other.images, value])
    items = [random_item(i, 3, f"{i}.png") for i in (3, 1, 0)]  # the last is repeated, as samplers do
    evaluate(tmp_path / "two", items)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    evaluate(tmp_path / "none", items)
    assert not (tmp_path / "none").exists()
    for name in ("submission.csv", "coco_results.json", "coco_images.json"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_failed_images_are_nowhere_and_runs_start_anew(tmp_path):
    handler = evaluate(tmp_path, [random_item(0, 3, "a.png"), ([], [])])
    assert list(read_kaggle(tmp_path / "submission.csv")) == ["a"]
    assert handler.images == {}  # the texts are not kept
    evaluate(tmp_path, [([], [])])
    assert (tmp_path / "submission.csv").read_text() == "idx,id,annotation\n"
    assert json.loads((tmp_path / "coco_results.json").read_text()) == []
    assert json.loads((tmp_path / "coco_images.json").read_text())["images"] == []


def test_files_can_be_left_out(tmp_path):
    item = random_item(0, 3, "a.png")
    evaluate(tmp_path / "off", [item], enabled=False)
    evaluate(tmp_path / "coco", [item], submission=False)
    del item[1][0]["detections"]
    evaluate(tmp_path / "kaggle", [item], coco=False)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")) == [
        "coco/coco_images.json",
        "coco/coco_results.json",
        "kaggle/submission.csv",
    ]
    with pytest.raises(ConfigError, match=r"^a\.png.*no detections.*coco to False"):
        evaluate(tmp_path, [item])
    with pytest.raises(ConfigError, match=r"order.*'rows'.*column, row"):
        ResultFiles(tmp_path, order="rows")


def test_in_a_workflow(make, data, tmp_path):
    make().run()
    bad = data.parent / "bad_result.png"
    bad.write_bytes(b"not an image")
    listed = json.loads(data.read_text())
    listed["testing"].insert(1, {"image": bad.name})
    (data.parent / "results.json").write_text(json.dumps(listed))
    workflow = make(mode="infer", datalist=str(data.parent / "results.json"))
    ResultFiles(tmp_path / "results", coco=False).attach(workflow.content("evaluator"))
    with pytest.raises(CellBundleError, match=r"1 of 4 images.*bad_result\.png"):
        workflow.run()
    images = read_kaggle(tmp_path / "results" / "submission.csv")
    assert len(images) == 3
    for name, image in images.items():
        labels = read_labels(tmp_path / "run" / "eval" / f"{name}_labels.tif")
        np.testing.assert_array_equal(paint_rles(image.runs, labels.shape, "kaggle_rows").labels, labels)
