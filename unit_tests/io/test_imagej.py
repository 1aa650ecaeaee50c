"""ROI sets come back from roifile as the same pixels; all ROIs that enclose an area are read."""

from zipfile import ZipFile

import numpy as np
import pytest
import roifile
from skimage import draw

from cellbundle.errors import ArrayError, LabelReadError
from cellbundle.instances.painting import paint_rings
from cellbundle.io.formats.imagej import MAX_SHORT, read_imagej, write_imagej

from .conftest import make


def rasterise(rois, shape):
    labels = np.zeros(shape, np.int32)
    for roi in rois:
        mask = np.zeros(shape, bool)
        for ring in roi.coordinates(multi=True):
            x, y = ring.T - 0.5
            mask[draw.polygon(y, x, shape)] ^= True
        assert not labels[mask].any()
        labels[mask] = int(roi.name)
    return labels


def test_pixels_come_back(tmp_path, instances):
    write_imagej(tmp_path / "a.zip", instances)
    rois = roifile.roiread(tmp_path / "a.zip")
    assert [int(roi.name) for roi in rois] == instances.table["label"].tolist()
    np.testing.assert_array_equal(rasterise(rois, instances.labels.shape), instances.labels)


def test_one_part_without_holes_is_traced_and_others_are_composite(tmp_path):
    write_imagej(tmp_path / "a.zip", make([[1, 1, 0, 2], [1, 0, 0, 0], [0, 3, 3, 3], [0, 3, 0, 3], [2, 3, 3, 3]]))
    simple, parts, ring = roifile.roiread(tmp_path / "a.zip")
    assert simple.roitype == roifile.ROI_TYPE.TRACED
    assert (simple.left, simple.top, simple.right, simple.bottom) == (0, 0, 2, 2)
    for roi in (parts, ring):
        assert roi.composite
        assert roi.roitype == roifile.ROI_TYPE.RECT
        assert len(roi.coordinates(multi=True)) == 2


def test_coordinates_beyond_16_bits(tmp_path):
    labels = np.zeros((4, 70_000), np.int32)
    for label, (first, last) in enumerate(
        [(0, 40_000), (32_760, 32_770), (60_000, MAX_SHORT), (60_530, MAX_SHORT + 1), (66_000, 69_000)], start=1
    ):
        labels[label % 4, first:last] = label
    instances = make(labels)
    write_imagej(tmp_path / "a.zip", instances)
    rois = roifile.roiread(tmp_path / "a.zip")
    assert [roi.composite for roi in rois] == [False, False, False, True, True]
    np.testing.assert_array_equal(rasterise(rois, labels.shape), instances.labels)


def test_too_large_an_image_is_refused(tmp_path):
    with pytest.raises(ArrayError, match=r"16777216.*\(1, 16777217\).*GeoJSON"):
        write_imagej(tmp_path / "a.zip", make(np.zeros((1, 2**24 + 1), np.uint8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_many_instances(tmp_path, many):
    write_imagej(tmp_path / "a.zip", many)
    with ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        last = roifile.ImagejRoi.frombytes(archive.read(names[-1]))
    assert len(set(names)) == len(names) == 75_625
    assert names[0] == "00001.roi"
    assert last.coordinates().tolist() == [[1096, 1096], [1099, 1096], [1099, 1099], [1096, 1099]]


def test_the_same_instances_give_the_same_file(tmp_path, scored):
    for name in ("a.zip", "b.zip"):
        write_imagej(tmp_path / name, scored)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def painted(path, shape):
    return paint_rings([roi.rings for roi in read_imagej(path)], shape)


def roi(kind, frame=(0, 0, 0, 0), **others):
    """A ROI with the frame left, top, right and bottom."""
    left, top, right, bottom = frame
    return roifile.ImagejRoi(roitype=roifile.ROI_TYPE[kind], left=left, top=top, right=right, bottom=bottom, **others)


def with_corners(kind, corners, **others):
    one = roifile.ImagejRoi.frompoints(np.array(corners))
    one.roitype, one.name = roifile.ROI_TYPE[kind], ""
    for key, value in others.items():
        setattr(one, key, value)
    return one


def test_coordinates_beyond_16_bits_are_read(tmp_path):
    labels = np.zeros((2, 70_000), np.int32)
    labels[0, 40_000:60_530], labels[1, 66_000:69_000], labels[1, :9] = 1, 2, 3
    instances = make(labels)
    write_imagej(tmp_path / "a.zip", instances)
    np.testing.assert_array_equal(painted(tmp_path / "a.zip", labels.shape).labels, labels)


@pytest.mark.parametrize("kind", ["POLYGON", "FREEHAND", "TRACED"])
@pytest.mark.parametrize(
    "corners", [[(1, 0), (3, 0), (3, 2), (1, 2)], [(0.6, 0.4), (3.4, 0.4), (3.4, 2.4), (0.6, 2.4)]]
)
def test_one_file_with_corners(tmp_path, kind, corners):
    with_corners(kind, corners).tofile(tmp_path / "cell 1.roi")
    (one,) = read_imagej(tmp_path / "cell 1.roi")
    assert one.name == "cell 1"
    np.testing.assert_array_equal(painted(tmp_path / "cell 1.roi", (3, 4)).labels, [[0, 1, 1, 0]] * 2 + [[0] * 4])


def test_rectangles_fill_their_frame(tmp_path):
    roifile.roiwrite(tmp_path / "a.zip", [roi("RECT", (1, 0, 3, 2)), roi("RECT", (0, 1, 2, 5))], name=["a", "b"])
    assert [one.name for one in read_imagej(tmp_path / "a.zip")] == ["a", "b"]
    np.testing.assert_array_equal(
        painted(tmp_path / "a.zip", (3, 4)).labels, [[0, 1, 1, 0], [2, 1, 1, 0], [2, 2, 0, 0]]
    )


def test_an_oval_by_hand(tmp_path):
    """As ImageJ 1.53t fills it."""
    roi("OVAL", (1, 2, 9, 9)).tofile(tmp_path / "a.roi")
    spans = {2: (3, 7), 3: (2, 8), 4: (1, 9), 5: (1, 9), 6: (1, 9), 7: (2, 8), 8: (3, 7)}
    expected = np.zeros((10, 10))
    for y, (first, last) in spans.items():
        expected[y, first:last] = 1
    np.testing.assert_array_equal(painted(tmp_path / "a.roi", (10, 10)).labels, expected)


def test_ovals_hold_the_pixels_whose_centres_lie_in_the_ellipse(tmp_path):
    y, x = np.indices((40, 40)) + 0.5
    for width in range(1, 31):
        for height in (1, 2, 3, 7, 12, 25, 30):
            roi("OVAL", (4, 5, 4 + width, 5 + height)).tofile(tmp_path / "a.roi")
            expected = ((x - 4) * 2 / width - 1) ** 2 + ((y - 5) * 2 / height - 1) ** 2 <= 1 + 1e-12
            np.testing.assert_array_equal(painted(tmp_path / "a.roi", (40, 40)).labels, expected)


def test_composites_of_imagej_with_holes(tmp_path):
    path = [0, 0, 0, 1, 4, 0, 1, 4, 3, 1, 0, 3, 4, 0, 1, 1, 1, 3, 1, 1, 3, 2, 1, 1, 2, 4]
    one = roi("RECT", (0, 0, 4, 3), multi_coordinates=np.array(path, np.float32), shape_roi_size=len(path))
    one.tofile(tmp_path / "a.roi")
    np.testing.assert_array_equal(
        painted(tmp_path / "a.roi", (3, 5)).labels, [[1] * 4 + [0], [1, 0, 0, 1, 0], [1] * 4 + [0]]
    )


def test_only_rois_in_an_archive_count(tmp_path):
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("RoiSet/b.ROI", "__MACOSX/RoiSet/._b.roi", "RoiSet/", "notes.txt", "a.roi"):
            data = roi("RECT", (0, 0, 1, 1)).tobytes() if "._" not in name else b"x"
            archive.writestr(name, data)
    assert [one.name for one in read_imagej(tmp_path / "a.zip")] == ["b", "a"]
    with ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(LabelReadError, match=r"b\.zip.*no \.roi.* 1 entries"):
        read_imagej(tmp_path / "b.zip")


TRIANGLE = [(0, 0), (3, 0), (3, 3)]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (roi("LINE"), "type line,.*polygon, freehand"),
        (with_corners("POINT", [(1, 1)]), "type point,.*polygon, freehand"),
        (with_corners("FREELINE", TRIANGLE), "type freeline,.*polygon, freehand"),
        (roi("RECT", (0, 0, 9, 9), subtype=roifile.ROI_SUBTYPE.TEXT, text="x"), "type text,.*polygon, freehand"),
        (roi("RECT", (0, 0, 9, 9), rounded_rect_arc_size=4), "rounded rectangle,.*polygon, freehand"),
        (with_corners("POLYGON", TRIANGLE, options=roifile.ROI_OPTIONS.SPLINE_FIT), "spline,.*polygon, freehand"),
        (with_corners("POLYGON", TRIANGLE[:2]), "3 corners"),
        (
            roi("RECT", multi_coordinates=np.array([0, 0, 0, 2, 1, 1, 2, 2, 4], np.float32), shape_roi_size=9),
            "cannot be decoded.*not supported",
        ),
    ],
)
def test_rois_without_an_area_that_can_be_read_are_named(tmp_path, one, message):
    roifile.roiwrite(tmp_path / "x.zip", [roi("RECT", (0, 0, 2, 2)), one], name=["good", "cell 7"])
    with pytest.raises(LabelReadError, match=rf"x\.zip.*cell 7\.roi.*{message}"):
        read_imagej(tmp_path / "x.zip")


@pytest.mark.parametrize("data", [b"", b"Iout", b"PK\3\4", b"\x89PNG", roi("RECT").tobytes()[:60]])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "x.roi").write_bytes(data)
    with pytest.raises(LabelReadError, match=r"x\.roi.*cannot be decoded"):
        read_imagej(tmp_path / "x.roi")
