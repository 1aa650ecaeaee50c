"""Names, addresses, parameters and steps of tracked runs."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from cellbundle.errors import ConfigError
from cellbundle.tracking.names import (
    database_file,
    experiment_name,
    flat_scores,
    numbers,
    plain_parameters,
    resolve_uri,
    safe_name,
)
from cellbundle.tracking.session import config_text, report_scores
from cellbundle.tracking.upload import MetricRecord, Steps, missing


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://host:5000/", "http://host:5000"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("postgresql+psycopg2://u:p@host/db", "postgresql+psycopg2://u:p@host/db"),
        ("sqlite:////data/a.db", "sqlite:////data/a.db"),
        ("sqlite:///a.db", "sqlite:///{here}/a.db"),
        ("runs.db", "sqlite:///{here}/runs.db"),
        ("runs", "sqlite:///{here}/runs/mlruns.db"),
        (".", "sqlite:///{here}/mlruns.db"),
    ],
)
def test_addresses(given, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_uri(given) == expected.format(here=tmp_path)


@pytest.mark.parametrize("uri", ["file:./mlruns", "file:///data/mlruns"])
def test_plain_files_are_refused_with_what_to_give_instead(uri):
    with pytest.raises(ConfigError, match=r"mlflow_tracking_uri.*plain files.*mlruns\.db"):
        resolve_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "htp://host",
        "sqlite:///",
        "s3://user:secret@bucket",
        "http:/user:secret@host",
        "file://user:secret@host/x",
        "cache::http://user:secret@host",
    ],
)
def test_other_addresses_are_refused_without_their_password(uri):
    with pytest.raises(ConfigError, match=r"mlflow_tracking_uri.*mlruns\.db.*http://HOST:PORT") as error:
        resolve_uri(uri)
    assert "secret" not in str(error.value)


def test_database_file():
    assert database_file("sqlite:////data/a%20b.db?timeout=5") == Path("/data/a b.db")
    assert database_file("http://host") is None


def test_databricks_wants_paths_as_experiments():
    assert experiment_name("databricks", "cells") == "/Shared/cells"
    assert experiment_name("databricks", "/Users/me/cells") == "/Users/me/cells"
    assert experiment_name("http://host", "cells") == "cells"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("val_ap@0.5", "val_ap_0.5"),
        ("a//b/../c/.", "a/b/c"),
        ("/a", "a"),
        ("", "_"),
        ("x" * 300, "x" * 250),
        ("Zellkern-Größe", "Zellkern-Größe"),
    ],
)
def test_names(given, expected):
    assert safe_name(given) == expected


def test_numbers():
    assert numbers({"a": 1, "b": "2.5", "c": None, "d": [1, 2], "e": "x"}) == {"a": 1.0, "b": 2.5}


def test_parameters_are_the_plain_values():
    config = {
        "imports": ["$from a import b"],
        "tracker": {"uri": "x"},
        "mlflow_tracking_uri": "http://me:secret@host",
        "quick": False,
        "roi_size": [32, 32],
        "epochs": "$1 if @quick else 100",
        "data": "$find()",
        "train": {"loss": {"_target_": "Loss", "weight": 2.0}, "steps": ["@train#loss", {"prob": 0.5}]},
        "text": "x" * 600,
        "nothing": None,
        "weights": "https://me:secret@host/a.pt?sig=secret",
        "folders": ["s3://KEY:secret@b/x", Path("/data")],
        "source": "$find_address()",
    }
    resolved = {"epochs": 100, "data": [{"image": "a"}], "train#loss": object(), "source": "s3://KEY:secret@b"}
    found = plain_parameters(config, resolved)
    assert found == {
        "quick": "False",
        "roi_size": "[32, 32]",
        "epochs": "100",
        "train.loss._target_": "Loss",
        "train.loss.weight": "2.0",
        "train.steps.1.prob": "0.5",
        "text": "x" * 500,
        "nothing": "None",
        "weights": "https://host/a.pt",
        "folders": "['s3://b/x', PosixPath('/data')]",
        "source": "s3://b",
    }


def test_the_configuration_that_is_logged_has_no_secrets():
    lists = [{"datalist": "https://host/a.json?sig=secret", "basedir": Path("s3://KEY:secret@b/x")}]
    config = {"mlflow_tracking_uri": "http://me:sec/ret@host", "data_list_files": lists, "x": "$f('s3://K:secret@b')"}
    text = config_text(config)
    assert "ret" not in text
    assert yaml.safe_load(text) == {
        "mlflow_tracking_uri": "http://host",
        "data_list_files": [{"datalist": "https://host/a.json", "basedir": "s3:/b/x"}],
        "x": "$f('s3://b')",
    }


def test_scores_of_reports():
    content = {"pooled": {"ap@0.5": 0.5, "none": None}, "n": 3, "images": [1], "yes": True, "bad": float("nan")}
    assert flat_scores(content, "testing") == {"testing/pooled/ap_0.5": 0.5, "testing/n": 3.0}


@pytest.mark.parametrize(("n_groups", "more"), [(1, {}), (2, {"testing/groups/0/n": 1.0, "testing/groups/1/n": 1.0})])
def test_a_single_group_and_counts_of_thresholds_are_left_out(n_groups, more):
    pooled = {"ap50": 0.5, "tp50": 3, "iou_sum50": 2.5}
    content = {"all": {"pooled": pooled}, "groups": {str(i): {"n": 1} for i in range(n_groups)}, "n_failed": 0}
    assert report_scores(content, "testing") == {"testing/pooled/ap50": 0.5, "testing/n_failed": 0.0, **more}


def test_steps_are_a_set():
    rng, steps, expected = random.Random(0), Steps(), set()
    for _ in range(400):
        step = rng.randrange(-50, 250)
        steps.add(step)
        expected.add(step)
    assert {step for step in range(-100, 300) if step in steps} == expected
    runs = [(s, e) for s, e in zip(steps.starts, steps.ends, strict=True)]
    assert all(s <= e for s, e in runs)
    assert all(e + 1 < s for (_, e), (s, _) in pairwise(runs)), "joined where they touch"


def test_steps_in_a_row_take_one_entry():
    assert Steps(range(100_000)).ends == [99_999]


def test_first_record_of_a_step_that_is_not_known():
    metrics = [MetricRecord(*row) for row in (("a", 1.0, 5, 1), ("a", 2.0, 6, 2), ("a", 3.0, 7, 2), ("b", 4.0, 8, 1))]
    assert missing(metrics, {"a": Steps([1])}) == [metrics[1], metrics[3]]
