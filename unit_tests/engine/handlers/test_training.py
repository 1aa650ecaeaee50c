"""Handlers on bare engines; the workflow's tests show them together."""

from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from cellbundle.engine.handlers import EarlyStop, History, LowAccuracyGuard, find_handler, register_handler
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


def test_history_keeps_the_terms_of_the_loss_and_the_rates_of_all_groups(tmp_path):
    parameters = [{"params": torch.nn.Parameter(torch.zeros(1)), "lr": lr} for lr in (0.5, 0.25)]
    loss = SimpleNamespace(terms={})

    def iterate(engine, value):
        loss.terms = {"first": torch.tensor(value), "second": torch.tensor(2 * value)}
        return {"loss": torch.tensor(3 * value)}

    validator = SimpleNamespace(state=SimpleNamespace(epoch=-1))
    history = History(str(tmp_path / "history.csv"), validator, torch.optim.SGD(parameters), loss, phase=2)
    history.rows = [{"phase": 1, "epoch": 7, "loss": 9.0}, {"phase": 2, "epoch": 1, "loss": 8.0}]  # of an earlier run
    engine = Engine(iterate)
    history.attach(engine)
    engine.run([1.0, 3.0], max_epochs=2)
    assert [(row["phase"], row["epoch"]) for row in history.rows] == [(1, 7), (2, 1), (2, 2)]
    wanted = {"loss": 6, "first": 2, "second": 4, "learning_rate": 0.5, "learning_rate_1": 0.25}
    assert {key: history.rows[2][key] for key in wanted} == wanted
    assert (tmp_path / "history.csv").read_text().startswith("phase,epoch,loss,first,second,learning_rate,")


def epochs_until_early_stop(scores, state=None, **options):
    """Epochs that a training does that validates after each epoch with these scores; the last one goes on."""
    trainer, validator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    validator.state.key_metric_name = "ap50"

    handler = EarlyStop(validator, **options)
    validator.add_event_handler(
        Events.STARTED,
        lambda engine: engine.state.metrics.update(ap50=scores[min(trainer.state.epoch, len(scores)) - 1]),
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: validator.run([0]))
    handler.attach(trainer)
    if state is not None:
        handler.stopper.load_state_dict(state)
    trainer.run([0], max_epochs=40)
    return trainer.state.epoch


@pytest.mark.parametrize(
    ("scores", "options", "stopped"),
    [
        ([0.5], {"patience": 2}, 3),
        ([0.5], {"patience": 0, "min_epochs": 5}, 40),  # never
        ([0.5], {"patience": 2, "min_epochs": 10}, 11),  # epochs 10 and 11 are no better than the first
        ([0.5], {"patience": 1, "min_epochs": 10}, 10),
        ([0.9, 0.1, 0.2, 0.3, 0.4], {"patience": 3, "min_epochs": 4}, 6),  # better than before is not enough
        ([0.1] * 12 + [0.5], {"patience": 3, "min_epochs": 11}, 16),
        ([0.1, 0.2, 0.3], {"patience": 2}, 5),
    ],
)
def test_early_stop(scores, options, stopped):
    assert epochs_until_early_stop(scores, **options) == stopped


def test_early_stop_goes_on_from_a_checkpoint():
    state = {"counter": 1, "best_score": 0.6, "threshold_mode": "abs"}
    assert epochs_until_early_stop([0.5], state, patience=3, min_epochs=4) == 5


def test_handlers_are_found_by_their_class():
    engine = Engine(lambda engine, batch: None)
    assert find_handler(engine, EarlyStop) is None
    stop = EarlyStop(Engine(lambda engine, batch: None), patience=2)
    stop.attach(engine)
    register_handler(engine, "a handler of another kind")
    assert find_handler(engine, EarlyStop) is stop
    assert find_handler(engine, History) is None
    engine.run([0], max_epochs=1)
    assert find_handler(engine, EarlyStop) is stop, "also after a run"
