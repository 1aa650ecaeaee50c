"""Instances painted by position, the smaller one on top: every encoding by hand, and polygons against OpenCV."""

import tracemalloc

import numpy as np
import pytest
import shapely
from scipy import ndimage
from skimage.draw import polygon

from cellbundle.errors import ArrayError
from cellbundle.instances.overlaps import labels_to_rles
from cellbundle.instances.painting import paint_contours, paint_masks, paint_rings, paint_rles
from cellbundle.instances.polygons import contours, outlines

from ..words import Like

LARGE, SMALL = [[1, 1, 1, 1]], [[0, 1, 1, 0]]


def assert_painted(painted, labels, lost=()):
    assert (painted.labels.dtype, painted.labels.flags.c_contiguous) == (np.int32, True)
    np.testing.assert_array_equal(painted.labels, labels)
    assert painted.lost == list(lost)


def rings_of(labels):
    """All rings of each instance, exteriors and holes alike."""
    return [[ring for part in parts for ring in (part.exterior, *part.holes)] for parts in outlines(labels)]


@pytest.mark.parametrize(
    ("masks", "expected", "lost"),
    [
        ([LARGE, SMALL], [1, 2, 2, 1], []),
        ([SMALL, LARGE], [2, 1, 1, 2], []),  # ids stay those of the positions
        ([SMALL, SMALL], [0, 1, 1, 0], [1]),  # of two copies the first
        ([[[0, 0, 0, 0]], LARGE, [[0, 0, 0, 0]]], [2, 2, 2, 2], [0, 2]),
        ([LARGE, [[1, 1, 0, 0]], [[0, 0, 1, 1]]], [2, 2, 3, 3], [0]),  # wholly under smaller ones
        ([], [0, 0, 0, 0], []),
    ],
)
def test_masks_by_hand(masks, expected, lost):
    assert_painted(paint_masks(np.array(masks, bool).reshape(-1, 1, 4), (1, 4)), [expected], lost)
    assert_painted(paint_masks(iter(np.array(masks, np.uint8).reshape(-1, 1, 4)), (1, 4)), [expected], lost)


def test_masks_in_boxes():
    crops, boxes = [np.ones((2, 2), bool)] * 3, [(0, 0, 2, 2), (1, 1, 3, 3), (5, 5, 7, 7)]
    assert_painted(paint_masks(iter(crops), (2, 3), boxes), [[1, 1, 0], [1, 2, 2]], [2])


@pytest.mark.parametrize(
    ("rles", "form", "expected"),
    [
        (["1 4", "3 1"], "kaggle", [[1, 2, 0], [1, 1, 0]]),
        (["1 4", "3 1"], "kaggle_rows", [[1, 1, 2], [1, 0, 0]]),
        ([[0, 4, 2], {"size": [2, 3], "counts": [2, 1, 3]}], "coco", [[1, 2, 0], [1, 1, 0]]),
    ],
)
def test_run_lengths_by_hand(rles, form, expected):
    assert_painted(paint_rles(rles, (2, 3), form), expected)
    assert_painted(paint_rles(iter(rles), (2, 3), form), expected)


def test_rings_follow_the_edges_of_pixels():
    frame = [[(0, 0), (4, 0), (4, 3), (0, 3)], [(1, 1), (1, 2), (3, 2), (3, 1)]]  # with a hole
    parts = [[(5, 0), (6, 0), (6, 1), (5, 1)], [(5, 2), (6, 2), (6, 3), (5, 3), (5, 2)]]  # one closed, one not
    inner = [[(1, 1), (3, 1), (3, 2), (1, 2)]]
    rings = [[np.array(ring) for ring in instance] for instance in (frame, parts, inner, [])]
    expected = [[1, 1, 1, 1, 0, 2], [1, 3, 3, 1, 0, 0], [1, 1, 1, 1, 0, 2]]
    assert_painted(paint_rings(rings, (3, 6)), expected, [3])


@pytest.mark.parametrize(("edge", "inside"), [(1.4, [1, 0, 0]), (1.6, [1, 1, 0])])
def test_a_pixel_belongs_to_a_ring_that_holds_its_centre(edge, inside):
    assert_painted(paint_rings([[np.array([(0, 0), (edge, 0), (edge, 1), (0, 1)])]], (1, 3)), [inside])


@pytest.mark.parametrize("corner", [20, 20.25, 20.5, 20.75])
def test_neighbours_with_a_common_edge_have_their_own_pixels(corner):
    square = np.array([(0, 0), (10, 0), (10, 10), (0, 10)]) + corner
    beside, below = square + np.array((10, 0)), square[::-1] + np.array((0, 10))
    painted = paint_rings([[square], [beside], [below]], (60, 60))
    assert np.bincount(painted.labels.ravel())[1:].tolist() == [100, 100, 100]


def test_triangles_of_a_square_share_no_pixel_on_their_slanted_edge():
    for shift in (0, 0.5):
        a, b, c, d = (np.array(one) + shift for one in ((2, 2), (12, 2), (12, 12), (2, 12)))
        for halves in ([(a, b, c), (a, c, d)], [(c, b, a), (d, a, c)], [(a, b, d), (b, c, d)]):
            painted = paint_rings([[np.array(half)] for half in halves], (20, 20))
            assert np.bincount(painted.labels.ravel())[1:].sum() == 100
            alone = [paint_rings([[np.array(half)]], (20, 20)).labels for half in halves]
            assert (alone[0] + alone[1]).max() == 1


def test_rings_of_any_corners_hold_the_pixels_of_peers():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :25]
    centres = shapely.points(x + 0.5, y + 0.5)
    for _ in range(100):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
        ring = (12, 10) + rng.uniform(1, 16, (len(angles), 1)) * np.column_stack([np.cos(angles), np.sin(angles)])
        expected = shapely.contains(shapely.Polygon(ring), centres)
        np.testing.assert_array_equal(paint_rings([[ring]], (20, 25)).labels > 0, expected)
        filled = np.zeros((20, 25), bool)
        filled[polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, filled.shape)] = True
        np.testing.assert_array_equal(paint_rings([[ring]], (20, 25)).labels > 0, filled)


@pytest.mark.parametrize("far", [1e9, 1e200, 1.7e308])
def test_corners_far_away(far):
    assert paint_rings([[np.array([(-far, -far), (far, -far), (far, far), (-far, far)])]], (5, 4)).labels.all()
    assert paint_rings([[np.array([(far, far), (far, -far), (far / 2, 0)])]], (5, 4)).lost == [0]


@pytest.mark.parametrize("seed", range(3))
def test_rings_give_back_any_label_map(seed):
    labels = np.random.default_rng(seed).integers(0, 5, (30, 20))
    assert_painted(paint_rings(rings_of(labels), labels.shape), labels)


@pytest.mark.parametrize("shift", [(-3, -2), (4, 1), (0, 90), (-50, 0)])
def test_rings_and_contours_are_cut_at_the_edge_of_the_image(shift):
    wide = np.zeros((200, 200), np.int32)
    wide[100:106, 100:107] = 1
    wide[101:103, 102:104] = 0
    y, x = 100 - shift[1], 100 - shift[0]
    cut = wide[y : y + 6, x : x + 7]
    lost = [] if cut.any() else [0]
    rings = [[ring - (x, y) for ring in rings_of(wide)[0]]]
    assert_painted(paint_rings(rings, cut.shape), cut, lost)
    contour = np.array([(100, 100), (106, 100), (106, 105), (100, 105)]) - (x, y)
    assert_painted(paint_contours([contour], cut.shape), ndimage.binary_fill_holes(wide)[y : y + 6, x : x + 7], lost)


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ([(1, 0)], [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        ([(1, 0), (1, 2)], [[0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]]),
        ([(0, 0), (2, 2)], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
        ([(0, 0), (0, 2), (2, 2), (2, 0)], [[1, 1, 1, 0]] * 3),
        ([(2, 0), (1, 1), (2, 2), (3, 1)], [[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 1, 0]]),
        ([(0.4, -0.4), (0.4, 1.6), (1.6, 2.4), (2.4, 0)], [[1, 1, 1, 0]] * 3),  # rounded to centres
        ([], [[0, 0, 0, 0]] * 3),
    ],
)
def test_contours_run_through_centres_of_pixels(corners, expected):
    painted = paint_contours([np.array(corners).reshape(-1, 2)], (3, 4))
    assert_painted(painted, expected, [] if corners else [0])


@pytest.mark.parametrize("seed", range(5))
def test_contours_of_opencv_come_back(seed):
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    for _ in range(100):
        noise, n = ndimage.label(rng.random(rng.integers(3, 16, 2)) < rng.choice([0.5, 0.7, 0.9]))
        masks = [ndimage.binary_fill_holes(noise == i) for i in range(1, n + 1)]
        for approximation in (cv2.CHAIN_APPROX_NONE, cv2.CHAIN_APPROX_SIMPLE):
            for mask in masks:
                (contour,), _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, approximation)
                assert_painted(paint_contours([contour[:, 0]], mask.shape), mask)


@pytest.mark.parametrize("ring", [np.zeros((3, 3)), np.zeros(4), np.array([(0, 0), (1, np.nan), (1, 1)])])
def test_what_is_no_polygon_is_refused(ring):
    with pytest.raises(ArrayError, match=r"\(n, 2\) finite"):
        paint_rings([[ring]], (3, 3))
    with pytest.raises(ArrayError, match=r"\(n, 2\) finite"):
        paint_contours([ring], (3, 3))


SQUARE = np.array([(0, 0), (3, 0), (3, 3), (0, 3)])


def at(x, y):
    return SQUARE + np.array((x, y))


def reasons(painted):
    names = ("empty", "copies", "covered", "outside", "cut")
    return {name: getattr(painted, name) for name in names if getattr(painted, name)}


def test_why_outlines_are_lost():
    outlines = [
        SQUARE + 4,
        SQUARE + 4,  # a copy
        at(20, 0),  # outside
        SQUARE * 0.1 + 8.6,  # without a pixel's centre
        at(9, 0),  # for the most part outside
        2 * at(0, -1.5),  # under the two below
        np.array([(0, 0), (6, 0), (6, 2), (0, 2)]),
        np.array([(0, 2), (6, 2), (6, 3), (0, 3)]),
    ]
    painted = paint_rings([[outline] for outline in outlines], (10, 10))
    assert reasons(painted) == {"copies": [1], "outside": [2], "empty": [3], "cut": [4, 5], "covered": [5]}
    assert painted.lost == [1, 2, 3, 5]
    painted.check_frame()
    assert painted.remarks("cells") == [
        Like(r"^1 of 8 .*outside.*x 0 to 23, y -3 to 8\.9.*10 x 10"),
        Like(r"^2 of 8 .*leave.*x 0 to 23, y -3 to 8\.9.*10 x 10.*cut"),
        Like("^1 of 8 cells.*copies"),
        Like("^1 of 8 cells.*no pixel of their own"),
        Like("^1 of 8 cells.*no pixel.*empty"),
    ]


@pytest.mark.parametrize(
    "paint", [paint_rings, lambda rings, shape: paint_contours([ring for (ring,) in rings], shape)]
)
def test_outlines_of_another_frame_are_refused(paint):
    with pytest.raises(ArrayError, match=r"^2 of 2 .*outside.*x 12010 to 12253, y 0 to 3.*256 x 256"):
        paint([[at(12010, 0)], [at(12250, 0)]], (256, 256)).check_frame()
    with pytest.raises(ArrayError, match=r"fractions.*x by 300 and y by 256"):
        paint([[SQUARE * 0.1], [SQUARE * 0.2 + 0.3]], (256, 300)).check_frame()
    paint([[at(12010, 0)], [SQUARE]], (256, 256)).check_frame()
    paint([], (256, 256)).check_frame()


def test_a_cell_of_one_pixel_in_the_corner_is_no_fraction():
    painted = paint_rings([[np.array([(0, 0), (1, 0), (1, 1), (0, 1)])]], (256, 256))
    painted.check_frame()
    assert painted.remarks() == []


def test_copies_of_masks_are_told_from_covered_ones():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    half = mask & (np.arange(4) < 2)
    masks = [mask, mask.copy(), half, mask & ~half, np.zeros((4, 4), bool)]
    rles = labels_to_rles(mask.astype(np.int32)) * 2
    assert reasons(paint_masks(masks, (4, 4))) == {"copies": [0, 1], "empty": [4]}
    assert reasons(paint_masks([mask, half, mask & ~half], (4, 4))) == {"covered": [0]}
    assert reasons(paint_rles(rles, (4, 4), "coco")) == {"copies": [1]}


def test_three_thousand_cells_need_little_memory():
    y, x = np.mgrid[:520, :704]
    labels = np.where((y % 11 < 10) & (x % 11 < 10), y // 11 * 64 + x // 11 + 1, 0).astype(np.int32)
    rles, rings, corners = labels_to_rles(labels), rings_of(labels), [parts[0] for parts in contours(labels)]
    assert len(rles) == 3072
    for paint in (
        lambda: paint_rles(rles, labels.shape, "coco"),
        lambda: paint_rings(rings, labels.shape),
        lambda: paint_contours(corners, labels.shape),
    ):
        tracemalloc.start()
        painted = paint()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6
        assert_painted(painted, labels)
