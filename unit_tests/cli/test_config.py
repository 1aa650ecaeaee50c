from pathlib import Path

import pytest
import yaml

from cellbundle.cli import main
from cellbundle.engine.configs.bases import CHANGES, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "bundles" / "swin_unet" / "configs"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["config", *arguments])
    return stop.value.code


@pytest.mark.parametrize(
    ("name", "file"), [("swin_unet", "hyper_parameters.yaml"), (CONFIGS / "source.yaml", "source.yaml")]
)
def test_prints_the_merged_configuration(capsys: pytest.CaptureFixture[str], name: str | Path, file: str):
    assert run(str(name)) == 0
    text = capsys.readouterr().out
    assert "[common.yaml]" in text
    assert f"[{file}]" in text
    expected = {key: value for key, value in load_config(CONFIGS / file).items() if key not in CHANGES}
    assert yaml.safe_load(text) == expected
    assert run(str(name), "--flat") == 0
    flat = capsys.readouterr().out
    assert "common.yaml" not in flat
    assert yaml.safe_load(flat) == expected


def test_unknown_bundle(capsys: pytest.CaptureFixture[str]):
    assert run("swin_nut") == 2
    assert "no bundle 'swin_nut'" in capsys.readouterr().err


def test_what_is_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(str(tmp_path / "none.yaml")) == 2
    assert "no configuration file" in capsys.readouterr().err
    (tmp_path / "run.yaml").touch()
    assert run(str(tmp_path)) == 2
    assert "is a run; cellbundle info" in capsys.readouterr().err
