"""Handlers on bare engines; the workflow's tests show them together."""

from contextlib import suppress
from types import SimpleNamespace

import pytest
from ignite.engine import Engine, Events

from cellbundle.engine.handlers import LowAccuracyGuard
from cellbundle.errors import TrainingError


def epochs_until_stopped(scores, max_epochs=100, **options):
    """Epochs that a training does whose best score after each epoch is given; the last one goes on."""
    state = SimpleNamespace(best_metric=-1, best_metric_epoch=-1, key_metric_name="ap50")
    engine = Engine(lambda engine, batch: None)

    def validate(engine):
        score = scores[min(engine.state.epoch, len(scores)) - 1]
        if score is not None:
            state.best_metric, state.best_metric_epoch = score, engine.state.epoch

    engine.add_event_handler(Events.EPOCH_COMPLETED, validate)
    LowAccuracyGuard(SimpleNamespace(state=state), max_epochs, **options).attach(engine)
    with suppress(TrainingError):
        engine.run([0], max_epochs=max_epochs)
    return engine.state.epoch


@pytest.mark.parametrize(
    ("scores", "max_epochs", "options", "stopped"),
    [
        ([0.0], 100, {}, 25),  # a quarter of all
        ([0.0], 40, {}, 20),  # but at least 20
        ([0.0], 19, {}, 19),  # a short training ends by itself
        ([0.0] * 24 + [0.02], 100, {}, 100),
        ([0.02], 100, {}, 100),
        ([0.0], 100, {"enabled": False}, 100),
        ([None], 100, {}, 100),  # never validated
        ([None] * 30 + [0.0], 100, {}, 31),
        ([0.0], 10, {"epochs": 3, "share": 0.5}, 5),
        ([0.3], 10, {"epochs": 2, "lowest": 0.4}, 3),
    ],
)
def test_low_accuracy_stops_a_training(scores, max_epochs, options, stopped):
    assert epochs_until_stopped(scores, max_epochs, **options) == stopped
