"""The facts of every data set are complete, and its configuration offers just its options."""

from pathlib import Path

import pytest
import yaml

from cellbundle.datasets import names, read_facts
from cellbundle.datasets.convert import load_module
from cellbundle.errors import DatasetError

CONFIGS = Path(__file__).parents[2] / "download_preprocessor" / "configs"
COMMON = [
    "dataset",
    "raw_dir",
    "output_dir",
    "variant",
    "n_folds",
    "test_share",
    "seed",
    "workers",
    "download",
    "replace_foreign",
]
EXPECTED = {
    "bccd", "cellpose", "custom", "deepbacs", "dsb2018", "livecell", "neurips2022", "nuinsseg", "omnipose", "sartorius",
    "tissuenet", "yeaz",
}  # fmt: skip


def test_all_data_sets_are_there():
    assert set(names()) == EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_facts_say_what_a_user_needs(name):
    facts = read_facts(name)
    texts = (facts.title, facts.about, facts.page, facts.licence, facts.redistribution, facts.citation, facts.login)
    assert all(isinstance(text, str) and len(text) > 1 for text in (*texts, facts.layout))
    assert facts.variants
    for variant in facts.variants.values():
        assert variant.signature
        assert all(file.url is None or file.url.startswith(("https://", "http://")) for file in variant.files)
        assert all(file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32 for file in variant.files)
        assert set(variant.counts) <= {"training", "testing"}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_module_has_the_three_functions(name):
    module = load_module(name)
    assert all(callable(getattr(module, function)) for function in ("locate", "convert", "split"))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_configuration_has_the_options_with_their_defaults(name):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    facts = read_facts(name)
    assert list(config)[: len(COMMON)] == COMMON
    assert {key: config[key] for key in config if key not in COMMON} == {
        key: option.default for key, option in facts.options.items()
    }
    assert config["dataset"] == name
    assert (config["variant"], config["n_folds"], config["seed"], config["download"]) == ("auto", 5, 0, False)


def test_a_misspelt_data_set_is_an_error_that_suggests_the_right_one():
    with pytest.raises(DatasetError, match=r"'livecel'.*livecell"):
        read_facts("livecel")
