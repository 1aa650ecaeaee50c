"""Objects that several tiles see: synthetic cells cut into tiles come back whole, each once."""

import time

import numpy as np
import pytest
from scipy import ndimage

from cellbundle.decode.duplicates import merge_tiles
from cellbundle.errors import ArrayError, ConfigError
from cellbundle.inference.detection import tile_corners
from cellbundle.inference.tiling import plan_tiles
from cellbundle.instances.detections import Detections, tighten
from cellbundle.synthetic import generate


def as_detections(parts, shape, scores=None):
    """Detections of ``parts`` (tile, mask, box), with random scores, in the order of these; and the tile of each."""
    scores = np.random.default_rng(0).random(len(parts)) if scores is None else scores
    scores = np.array(scores, np.float32)
    parts = [parts[i] for i in np.argsort(-scores, kind="stable")]
    made = Detections(
        [mask for _, mask, _ in parts],
        np.array([box for _, _, box in parts], np.int64).reshape(-1, 4),
        -np.sort(-scores),
        np.ones(len(parts), np.int64),
        shape,
    )
    return made, np.array([tile for tile, _, _ in parts], np.int64)


def parts_of(labels, tiles):
    """What a perfect network sees of each cell in each tile: (tile, mask, box)."""
    parts = []
    for tile, (y0, x0, y1, x1) in enumerate(tiles.tolist()):
        seen = labels[y0:y1, x0:x1]
        for i, window in enumerate(ndimage.find_objects(seen), 1):
            if window is not None:
                parts.append((tile, *tighten(seen[window] == i, y0 + window[0].start, x0 + window[1].start)))
    return parts


def tiles_of(shape, largest, overlap):
    plan = plan_tiles(shape, largest, overlap)
    height, width = plan.tile
    return np.array([(y, x, min(y + height, shape[0]), min(x + width, shape[1])) for y, x in tile_corners(plan, shape)])


def assert_original(labels, merged):
    """Every cell is there once, with exactly its pixels."""
    found = []
    for mask, (y0, x0, y1, x1) in zip(merged.masks, merged.boxes_yxyx, strict=True):
        ids = np.unique(labels[y0:y1, x0:x1][mask])
        assert len(ids) == 1
        assert mask.sum() == (labels == ids[0]).sum()
        found.append(int(ids[0]))
    assert sorted(found) == list(range(1, labels.max() + 1))


def merge_cut(labels, tiles, **options):
    made, tile_of = as_detections(parts_of(labels, tiles), labels.shape)
    assert len(made) > labels.max()
    merged, kept = merge_tiles(made, tile_of, tiles, **options)
    assert (np.diff(merged.scores) <= 0).all()
    assert len(np.unique(kept)) == len(kept) == len(merged)
    return merged


@pytest.mark.parametrize(
    ("diameter", "largest", "overlap"),
    [
        (24, (128, 128), 0.25),  # as large as the overlap of 32, or smaller
        (24, (64, 64), 0.25),  # larger than the overlap of 16
        (24, (64, 96), 0.6),  # up to nine tiles see a pixel
        (110, (64, 64), 0.25),  # larger than a tile
    ],
)
def test_cells_cut_into_tiles_come_back_each_once(diameter, largest, overlap):
    shape = (300, 420)
    labels = generate("phase", shape, 60 if diameter < 50 else 8, diameter=diameter, touching=0.6, seed=2)[1]
    assert_original(labels, merge_cut(labels, tiles_of(shape, largest, overlap)))


TILES = np.array([(0, 0, 60, 60), (0, 40, 60, 100), (40, 0, 100, 60), (40, 40, 100, 100)])


def disc(labels, centre, radius, value, inner=0.0):
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    away = np.hypot(y - centre[0], x - centre[1])
    labels[(away <= radius) & (away >= inner)] = value


def test_a_large_cell_that_four_tiles_cut():
    labels = np.zeros((100, 100), np.int32)
    disc(labels, (50, 50), 35, 1)
    assert_original(labels, merge_cut(labels, TILES))


def test_a_ring_around_a_small_cell_in_the_overlap():
    labels = np.zeros((100, 100), np.int32)
    disc(labels, (50, 50), 12, 1, inner=7)
    disc(labels, (50, 50), 5, 2)
    assert_original(labels, merge_cut(labels, TILES))


def test_touching_cells_with_a_border_in_the_overlap():
    labels = np.zeros((100, 100), np.int32)
    labels[45:55, 20:50], labels[45:55, 50:80] = 1, 2
    labels[55:58, 20:80] = 3  # along the first two
    assert_original(labels, merge_cut(labels, TILES))


@pytest.mark.parametrize("seed", range(6))
def test_a_long_cell_that_no_two_of_its_ends_share(seed):
    """Through five tiles in a row: only neighbours see the same of it."""
    labels = np.zeros((20, 200), np.int32)
    labels[8:12, 3:197] = 1
    tiles = np.array([(0, x, 20, x + 40) for x in range(0, 161, 32)] + [(0, 160, 20, 200)])
    made, tile_of = as_detections(parts_of(labels, tiles), labels.shape, np.random.default_rng(seed).random(7))
    merged, _ = merge_tiles(made, tile_of, tiles)
    assert_original(labels, merged)
    assert merged.scores.tolist() == [made.scores[0]]


PAIR = np.array([(0, 0, 20, 60), (0, 40, 20, 100)])


def boxes_of(*given):
    """(tile, mask, box) of rectangles in rows 5 to 15: (tile, x0, x1)."""
    return [(tile, np.ones((10, x1 - x0), bool), (5, x0, 15, x1)) for tile, x0, x1 in given]


def merged_boxes(given, scores, **options):
    made, tile_of = as_detections(boxes_of(*given), (20, 100), scores)
    merged, kept = merge_tiles(made, tile_of, PAIR, **options)
    return merged.boxes_yxyx[:, [1, 3]].tolist(), merged.scores.tolist(), kept.tolist()


def test_the_tile_that_sees_the_whole_gives_the_mask():
    """Although the cut one has the better score, and that is kept."""
    boxes, scores, kept = merged_boxes([(0, 45, 60), (1, 45, 70)], [0.75, 0.5])
    assert (boxes, scores, kept) == ([[45, 70]], [0.75], [1])


def test_of_two_that_see_the_whole_the_better_one_is_kept():
    boxes, _, kept = merged_boxes([(0, 45, 55), (1, 45, 56)], [0.5, 0.75])
    assert (boxes, kept) == ([[45, 56]], [0])
    boxes, _, kept = merged_boxes([(0, 45, 55), (1, 45, 56)], [0.75, 0.5])
    assert (boxes, kept) == ([[45, 55]], [0])


def test_a_cut_one_gets_only_what_lies_outside_of_its_tile():
    """The other has a column more inside, at 39, and the row of pixels from 60 on."""
    made, tile_of = as_detections(
        [(0, np.ones((6, 30), bool), (5, 30, 11, 60)), (1, np.ones((5, 40), bool), (5, 40, 10, 80))],
        (20, 100),
        [0.9, 0.8],
    )
    merged, _ = merge_tiles(made, tile_of, PAIR)
    expected = np.ones((6, 50), bool)
    expected[5, 30:] = False
    np.testing.assert_array_equal(merged.masks[0], expected)
    assert merged.boxes_yxyx.tolist() == [[5, 30, 11, 80]]


def test_edges_of_the_image_do_not_cut():
    """At the left edge of the image and of its tile: whole, so it wins over the better one that is cut at 40."""
    boxes, _, kept = merged_boxes([(0, 0, 50), (1, 40, 50)], [0.5, 0.75])
    assert (boxes, kept) == ([[0, 50]], [1])


def test_only_what_both_tiles_see_is_compared():
    """The same 20 columns in the overlap, of masks 60 and 60 wide: 1 there, 0.2 as a whole."""
    boxes, _, _ = merged_boxes([(0, 0, 60), (1, 40, 100)], [0.9, 0.8], iou=1.0)
    assert boxes == [[0, 100]]


def test_the_threshold_is_reached_or_not():
    """8 of 16 columns in the overlap agree."""
    assert len(merged_boxes([(0, 42, 54), (1, 46, 58)], [0.9, 0.8], iou=0.5)[0]) == 1
    assert len(merged_boxes([(0, 42, 54), (1, 46, 58)], [0.9, 0.8], iou=0.51)[0]) == 2


def test_detections_of_one_tile_never_compete():
    """Two equal ones of the first tile; that of the second tile goes."""
    boxes, scores, _ = merged_boxes([(0, 45, 55), (0, 45, 55), (1, 45, 55)], [0.75, 0.5, 0.25])
    assert (boxes, scores) == ([[45, 55]] * 2, [0.75, 0.5])


def test_parts_reached_through_others_come_from_other_tiles():
    """The second of the first tile matches the part in the second tile too, and stays."""
    boxes, _, _ = merged_boxes([(0, 30, 60), (1, 40, 80), (0, 42, 60)], [0.9, 0.8, 0.7])
    assert boxes == [[30, 80], [42, 60]]


def test_classes_are_not_compared_and_the_better_score_gives_it():
    made, tile_of = as_detections(boxes_of((0, 45, 60), (1, 45, 70)), (20, 100), [0.9, 0.8])
    made = Detections(made.masks, made.boxes_yxyx, made.scores, np.array([2, 1]), made.shape)
    merged, kept = merge_tiles(made, tile_of, PAIR)
    assert (merged.classes.tolist(), kept.tolist()) == ([2], [1])


def test_parts_stay_parts_where_tiles_have_nothing_in_common():
    made, tile_of = as_detections(boxes_of((0, 30, 50), (1, 50, 70)), (20, 100))
    assert len(merge_tiles(made, tile_of, np.array([(0, 0, 20, 50), (0, 50, 20, 100)]))[0]) == 2


@pytest.mark.parametrize("n_tiles", [1, 4])
def test_nothing_to_merge(n_tiles):
    made, tile_of = as_detections([], (100, 100))
    merged, kept = merge_tiles(made, tile_of, TILES[:n_tiles])
    assert len(merged) == len(kept) == 0


def test_five_thousand_in_a_large_image():
    """0.5 s on one core."""
    tiles = tiles_of((8192, 8192), (1024, 1024), 0.25)
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(52), np.arange(52)), -1).reshape(-1, 2) * 157 + rng.integers(0, 90, (2704, 2))
    parts = []
    for y, x in grid.tolist():
        y0, x0 = np.maximum(tiles[:, 0], y), np.maximum(tiles[:, 1], x)
        y1, x1 = np.minimum(tiles[:, 2], y + 40), np.minimum(tiles[:, 3], x + 30)
        for k in np.flatnonzero((y1 > y0) & (x1 > x0)):
            box = (int(y0[k]), int(x0[k]), int(y1[k]), int(x1[k]))
            parts.append((k, np.ones((box[2] - box[0], box[3] - box[1]), bool), box))
    made, tile_of = as_detections(parts, (8192, 8192))
    assert len(made) > 5000
    started = time.process_time()
    merged, _ = merge_tiles(made, tile_of, tiles)
    assert time.process_time() - started < 5
    assert len(merged) == len(grid)
    assert {mask.shape for mask in merged.masks} == {(40, 30)}


def test_what_does_not_fit():
    made, tile_of = as_detections(boxes_of((0, 45, 60), (1, 45, 70)), (20, 100))
    with pytest.raises(ArrayError, match=r"tile_of.* 2 detections.* 2 tiles.*\(1,\)"):
        merge_tiles(made, tile_of[:1], PAIR)
    with pytest.raises(ArrayError, match=r"tile_of.* 2 tiles.*\(2,\), 1 to 2"):
        merge_tiles(made, np.array([1, 2]), PAIR)
    with pytest.raises(ConfigError, match=r"IoU.*\(0, 1\].* 0$"):
        merge_tiles(made, tile_of, PAIR, iou=0)


def test_a_sliver_at_the_edge_of_a_tile_belongs_to_the_whole_cell():
    """One tile predicts one of the four columns that it sees: an IoU of 0.2, but nothing outside of the cell."""
    tiles = np.array([[0, 0, 40, 40], [0, 20, 40, 60]])
    sliver = (0, np.ones((8, 1), bool), (11, 39, 19, 40))
    whole = (1, np.ones((10, 14), bool), (10, 36, 20, 50))
    found, kept = merge_tiles(*as_detections([sliver, whole], (40, 60), [0.9, 0.8]), tiles)
    assert found.boxes_yxyx.tolist() == [[10, 36, 20, 50]]
    assert kept.tolist() == [1]
    beside = (0, np.ones((8, 1), bool), (21, 39, 29, 40))
    assert len(merge_tiles(*as_detections([beside, whole], (40, 60)), tiles)[0]) == 2
