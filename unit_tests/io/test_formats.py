"""What all formats of instances have in common: they come back, and no half-written file is left."""

import numpy as np
import pytest

from cellbundle.errors import LabelReadError
from cellbundle.instances.painting import paint_rings, paint_rles
from cellbundle.io.formats.cellpose_seg import read_cellpose_seg, write_cellpose_seg
from cellbundle.io.formats.coco import read_coco, write_coco
from cellbundle.io.formats.geojson import read_geojson, write_geojson
from cellbundle.io.formats.imagej import read_imagej, write_imagej
from cellbundle.io.formats.kaggle import read_kaggle, write_kaggle
from cellbundle.io.formats.yolo import write_yolo
from cellbundle.io.table import write_csv, write_parquet

IMAGE = "Größe, 1.png"
WRITERS = {
    "a_seg.npy": lambda path, instances: write_cellpose_seg(path, instances, IMAGE),
    "a.json": lambda path, instances: write_coco(path, instances, IMAGE),
    "a.geojson": write_geojson,
    "a.zip": write_imagej,
    "columns.csv": lambda path, instances: write_kaggle(path, instances, IMAGE, order="column"),
    "rows.csv": lambda path, instances: write_kaggle(path, instances, IMAGE, order="row"),
    "a.txt": lambda path, instances: write_yolo(path, instances.labels),
    "table.csv": lambda path, instances: write_csv(path, instances.table),
    "table.parquet": lambda path, instances: write_parquet(path, instances.table),
}


# Each reader gives the label map, the ids that have lost all pixels, and the ids in the file.


def paint_cellpose(path, shape):
    labels = read_cellpose_seg(path)
    return labels, [], np.unique(labels[labels > 0]).tolist()


def paint_coco(path, shape):
    images = read_coco(path)
    assert list(images) == [IMAGE]
    (image,) = images[IMAGE]
    assert (image.height, image.width) == shape
    painted = image.paint()
    return painted.labels, painted.lost, image.ids


def paint_geojson(path, shape):
    features = read_geojson(path)
    painted = paint_rings([feature.rings for feature in features], shape)
    return painted.labels, painted.lost, [int(feature.name) for feature in features]


def paint_imagej(path, shape):
    rois = read_imagej(path)
    painted = paint_rings([roi.rings for roi in rois], shape)
    return painted.labels, painted.lost, [int(roi.name) for roi in rois]


def paint_kaggle(path, shape):
    images = read_kaggle(path)
    assert list(images) == [IMAGE]
    runs = images[IMAGE].runs
    painted = paint_rles(runs, shape, "kaggle_rows" if path.stem == "rows" else "kaggle")
    return painted.labels, painted.lost, list(range(1, len(runs) + 1))


READERS = {
    "a_seg.npy": paint_cellpose,
    "a.json": paint_coco,
    "a.geojson": paint_geojson,
    "a.zip": paint_imagej,
    "columns.csv": paint_kaggle,
    "rows.csv": paint_kaggle,
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_written_comes_back(tmp_path, instances, name):
    WRITERS[name](tmp_path / name, instances)
    labels, lost, ids = READERS[name](tmp_path / name, instances.labels.shape)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, instances.labels)
    assert lost == []
    assert ids == instances.table["label"].tolist()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", READERS)
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(LabelReadError, match=rf"{name}.*No such file"):
        READERS[name](tmp_path / name, (3, 4))


@pytest.mark.parametrize("name", WRITERS)
def test_a_failed_write_leaves_nothing(tmp_path, scored, full_disk, name):
    if name == "table.parquet":
        pytest.importorskip("pyarrow")
    with pytest.raises(OSError, match="No space"):
        WRITERS[name](tmp_path / name, scored)
    assert not list(tmp_path.iterdir())
