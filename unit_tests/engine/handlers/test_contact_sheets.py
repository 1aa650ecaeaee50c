"""The handlers that draw samples and predictions, on bare engines and in a workflow."""

from itertools import pairwise

import imagecodecs
import numpy as np
import pytest
import torch
from ignite.engine import Engine

from cellbundle.engine.handlers import contact_sheets
from cellbundle.engine.handlers.contact_sheets import PredictionSheet, SampleSheet
from cellbundle.io.overlay import to_picture
from cellbundle.report.sheets import draw_sheet, to_panel

SIDE = 32
IMAGES = torch.from_numpy(np.random.default_rng(0).random((14, 3, 16, 16), np.float32))
MAPS = torch.zeros((14, 16, 16), dtype=torch.int64)
for number, one in enumerate(MAPS):  # 0 to 13 cells, two of which touch
    for cell in range(number):
        one[4 * (cell // 4) : 4 * (cell // 4) + 3, 4 * (cell % 4) : 4 * (cell % 4) + 3 + (cell == 0)] = cell + 10
FAILED = {"path": ["bad.png"], "error": ["no image"]}, []
WHITE = np.full((1, 1, 3), 255, np.uint8)


def read(path):
    return imagecodecs.png_decode(path.read_bytes())


def batches(sizes, target=lambda part: {"label_map": MAPS[part]}):
    starts = np.cumsum([0, *sizes])
    parts = [slice(*ends) for ends in pairwise(starts)]
    return [{"image": IMAGES[part], "label": target(part)} for part in parts]


def train(handler, data, epochs=1):
    """Iterations after which the sheet was there, of an engine that does nothing."""
    written = []
    engine = Engine(lambda engine, batch: written.append(handler.path.exists()))
    handler.attach(engine)
    engine.run(data, max_epochs=epochs)
    return written


def sample(i, labels=None, what="cells"):
    """With boxes, unless labels are given."""
    image, boxes = IMAGES[i].numpy(), []
    if labels is None:
        labels = MAPS[i].numpy()
        cells = [np.nonzero(labels == cell) for cell in np.unique(labels)[1:]]
        boxes = [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in cells]
    count = len(np.unique(labels)) - 1
    caption = f"{i + 1}: {count} {what}, values {image.min():.2f} to {image.max():.2f}"
    picture = np.rint(255 * image.transpose(1, 2, 0)).astype(np.uint8)
    return caption, to_panel(picture, labels, boxes, SIDE)


def test_first_samples_as_soon_as_there_are_enough(tmp_path):
    handler = SampleSheet(tmp_path / "new" / "samples.png", side=SIDE)
    assert train(handler, batches([5, 5, 3, 1])) == [False, False, True, True]
    expected = draw_sheet([sample(i) for i in range(12)], 4)
    np.testing.assert_array_equal(read(handler.path), expected)


def test_few_samples_are_drawn_after_the_first_epoch_and_no_later_ones(tmp_path):
    handler = SampleSheet(tmp_path / "samples.png", side=SIDE)
    assert train(handler, batches([2, 1]), epochs=5) == [False, False] + [True] * 8
    np.testing.assert_array_equal(read(handler.path), draw_sheet([sample(i) for i in range(3)], 4))
    train(handler, batches([2]))
    np.testing.assert_array_equal(read(handler.path), draw_sheet([sample(i) for i in range(2)], 4))


def test_pieces_of_the_foreground_where_there_is_no_label_map(tmp_path):
    handler = SampleSheet(tmp_path / "samples.png", n=4, side=SIDE)
    train(handler, batches([4], lambda part: torch.stack([(MAPS[part] > 0).float(), -MAPS[part].float()], 1)))
    pieces = MAPS[:4].clone()
    pieces[pieces == 11] = 10  # these touch
    panels = [sample(i, torch.unique(pieces[i], return_inverse=True)[1].numpy(), "pieces") for i in range(4)]
    np.testing.assert_array_equal(read(handler.path), draw_sheet(panels, 4))


def test_values_beyond_the_range_are_clipped(tmp_path):
    handler = SampleSheet(tmp_path / "samples.png", n=1, side=16)
    image = torch.full((1, 1, 16, 16), 0.5)
    image[..., :8], image[..., 15] = -3, 7
    train(handler, [{"image": image, "label": {"label_map": MAPS[:1]}}])
    row = read(handler.path)[38 + 5, 8:24]
    assert row[[0, 7, 8, 14, 15]].tolist() == [[0] * 3, [0] * 3, [128] * 3, [128] * 3, [255] * 3]


@pytest.mark.parametrize(
    "batch",
    [
        {"image": IMAGES},
        {"image": IMAGES, "label": None},
        {"image": IMAGES, "label": {"class_map": MAPS}},
        {"image": IMAGES, "label": {"label_map": MAPS[:3]}},
        {"image": IMAGES, "label": {"label_map": MAPS[:, :5]}},
        {"image": IMAGES[:, :2], "label": {"label_map": MAPS}},
        {"image": IMAGES[0, 0], "label": torch.zeros(16, 3)},
        (IMAGES, MAPS),
        "text",
    ],
)
def test_odd_batches_are_one_warning(tmp_path, caplog, batch):
    handler = SampleSheet(tmp_path / "samples.png", side=SIDE)
    assert train(handler, [batch, batch], epochs=2) == [False] * 4
    assert [record.message.startswith("no sheet of training samples") for record in caplog.records] == [True]


def test_a_sheet_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    train(SampleSheet(tmp_path / "file" / "samples.png", n=1), batches([2, 2]))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(tmp_path / "file") in caplog.text


def test_samples_of_process_0_only(tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheets, "rank", lambda: 1)
    train(SampleSheet(tmp_path / "samples.png"), batches([3]))
    monkeypatch.undo()
    train(SampleSheet(tmp_path / "samples.png", enabled=False), batches([3]))
    assert list(tmp_path.iterdir()) == []


def item(index, pred=5, label=True, **output):
    """An image with ``index`` true and ``pred`` predicted cells."""
    truth = {"label": MAPS[index][None]} if label else {}
    output = {"index": torch.tensor(index), "image": IMAGES[index], "pred": MAPS[pred][None], **truth, **output}
    return [{"path": f"/x/{index}.a.png"}], [output]


def evaluate(handler, items):
    def step(engine, pair):
        engine.state.batch, output = pair
        if output is None:
            raise KeyboardInterrupt
        return output

    engine = Engine(step)
    handler.attach(engine)
    engine.run(items)
    return read(handler.path) if handler.path.exists() else None


def compared(index, pred=5, ap=None):
    picture = to_picture(IMAGES[index].numpy())
    panels = [(f"{index}.a", to_panel(picture, side=SIDE))]
    if ap is not None:
        panels.append((f"{index} true", to_panel(picture, MAPS[index].numpy(), side=SIDE)))
    caption = f"{pred} predicted" + ("" if ap is None else f", AP50 {ap:.2f}")
    return [*panels, (caption, to_panel(picture, MAPS[pred].numpy(), side=SIDE))]


def test_first_images_by_index_beside_their_truth(tmp_path):
    handler = PredictionSheet(tmp_path / "new" / "p.png", n=3, side=SIDE)
    sheet = evaluate(handler, [item(6), item(4), item(5), item(13), item(0)])
    expected = [*compared(0, ap=0), *compared(4, ap=4 / 5), *compared(5, ap=1)]
    np.testing.assert_array_equal(sheet, draw_sheet(expected, 6, 3))


def test_images_without_truth(tmp_path):
    handler = PredictionSheet(tmp_path / "p.png", side=SIDE)
    sheet = evaluate(handler, [item(i, label=False) for i in (1, 2, 3)])
    np.testing.assert_array_equal(sheet, draw_sheet([*compared(1), *compared(2), *compared(3)], 4, 2))
    sheet = evaluate(handler, [item(1, label=False), item(5)])
    np.testing.assert_array_equal(sheet, draw_sheet([*compared(1), ("", WHITE), *compared(5, ap=1)], 6, 3))


def test_images_that_fail_make_room_for_the_next_ones(tmp_path, caplog):
    handler = PredictionSheet(tmp_path / "p.png", n=2, side=SIDE)
    sheet = evaluate(handler, [FAILED, item(1, pred=1), item(2, image=IMAGES[2, :, :4]), item(4)])
    np.testing.assert_array_equal(sheet, draw_sheet([*compared(1, 1, ap=1), *compared(4, ap=4 / 5)], 6, 3))
    assert "/x/2.a.png is not in" in caplog.text
    assert "ArrayError" in caplog.text


def test_no_sheet_of_an_earlier_run_remains(tmp_path):
    handler = PredictionSheet(tmp_path / "p.png", side=SIDE)
    assert evaluate(handler, [item(1)]).any()
    assert evaluate(handler, [FAILED]) is None
    with pytest.raises(KeyboardInterrupt):
        evaluate(handler, [item(1), ([], None)])
    sheet = evaluate(handler, [item(2)])
    np.testing.assert_array_equal(sheet, draw_sheet(compared(2, ap=2 / 5), 6, 3))


def test_images_of_several_processes(tmp_path, monkeypatch):
    others = iter([[0, 2, 8], {0: compared(0, ap=0), 2: compared(2, ap=2 / 5)}])
    sent = []
    monkeypatch.setattr(contact_sheets, "gather", lambda value: sent.append(value) or [value, next(others)])
    handler = PredictionSheet(tmp_path / "p.png", n=3, side=SIDE)
    sheet = evaluate(handler, [item(i) for i in (9, 1, 3, 7)])
    expected = [*compared(0, ap=0), *compared(1, ap=1 / 5), *compared(2, ap=2 / 5)]
    np.testing.assert_array_equal(sheet, draw_sheet(expected, 6, 3))
    assert [list(value) for value in sent] == [[1, 3, 7], [1]]


def test_predictions_are_written_by_process_0_only(tmp_path, monkeypatch):
    assert evaluate(PredictionSheet(tmp_path / "p.png", enabled=False), [item(1)]) is None
    monkeypatch.setattr(contact_sheets, "rank", lambda: 1)
    assert evaluate(PredictionSheet(tmp_path / "p.png"), [item(1)]) is None


def test_in_a_workflow(make, tmp_path):
    workflow = make()
    SampleSheet(tmp_path / "samples.png", n=6, side=64).attach(workflow.trainer)
    workflow.run()
    assert read(tmp_path / "samples.png").shape == (8 + 2 * (30 + 64 + 8), 8 + 4 * (256 + 8), 3)
    workflow = make(mode="eval")
    PredictionSheet(tmp_path / "predictions.png", n=2, side=300).attach(workflow.content("evaluator"))
    workflow.run()
    height = round(300 * 64 / 72)
    assert read(tmp_path / "predictions.png").shape == (8 + 30 + height + 8, 8 + 6 * (300 + 8) + 20, 3)
