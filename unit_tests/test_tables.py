"""Tables of bundles in the README and in docs/, and the metadata and figures that they are made of."""

import json
import re
import shutil
import tomllib

import pytest
from unit_tests.packages.packaging import BUNDLES, ROOT, load_script

from cellbundle.errors import ConfigError

tables = load_script(ROOT / "scripts" / "tools" / "tables.py", "tables")


def metadata(name):
    return json.loads((ROOT / "bundles" / name / "configs" / "metadata.json").read_text(encoding="utf-8"))


def figures(name):
    return json.loads((ROOT / "bundles" / name / "docs" / "figures.json").read_text(encoding="utf-8"))


def test_pages_are_up_to_date():
    pages = tables.render(ROOT)
    assert {page.name for page in pages} >= {"README.md", "choose_a_bundle.md", "licences.md", "packages.md"}
    assert [str(page) for page, text in pages.items() if page.read_text(encoding="utf-8") != text] == []


@pytest.mark.parametrize("name", BUNDLES)
def test_figures_have_commands_and_stand_on_the_page_of_the_bundle(name):
    page = (ROOT / "bundles" / name / "docs" / "README.md").read_text(encoding="utf-8")
    for figure in figures(name):
        assert figure.keys() == {"data", "images", "weights", "command", "scores"}
        assert {"ap50", "mean_ap"} <= figure["scores"].keys()
        for part in figure["command"].split("; "):
            assert part.split()[0] in ("$RUN", "cellbundle"), part
        assert [key for key, value in figure["scores"].items() if f"{value:.3f}" not in page] == []


@pytest.mark.parametrize("name", BUNDLES)
def test_metrics_in_the_metadata_are_the_figures(name):
    main = next((figure["scores"] for figure in figures(name) if figure["data"] == "DSB2018"), {})
    expected = {f"dsb2018_testing_{key}": value for key, value in main.items()}
    assert metadata(name).get("eval_metrics", expected) == expected


@pytest.mark.parametrize("name", BUNDLES)
def test_extras_exist_and_bring_the_packages_of_the_bundle(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in metadata(name)["extras"]:
        assert extra in project["optional-dependencies"], f"pyproject.toml has no extra {extra}"
        lines += project["optional-dependencies"][extra]
    declared = {canonical(line) for line in lines}
    assert {canonical(package) for package in metadata(name)["required_packages_version"]} <= declared


def canonical(requirement):
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


@pytest.fixture
def repository(tmp_path):
    """One bundle, and a README without a table."""
    for part in ("configs/metadata.json", "docs/figures.json"):
        target = tmp_path / "bundles" / "cell_unet" / part
        target.parent.mkdir(parents=True)
        shutil.copyfile(ROOT / "bundles" / "cell_unet" / part, target)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("Nothing is generated.")
    return tmp_path


def write_page(repository, name):
    page = repository / "docs" / "page.md"
    page.write_text(f"before\n\n<!-- generated: {name} -->\nold\n<!-- end of generated -->\n\nafter\n")
    return page


def test_a_table_is_written_between_its_comments(repository):
    page = write_page(repository, "licences")
    pages = tables.render(repository)
    assert list(pages) == [page]
    lines = pages[page].splitlines()
    assert lines[:3] + lines[-3:] == [*page.read_text().splitlines()[:3], *page.read_text().splitlines()[-3:]]
    assert "old" not in lines
    assert "[the note](../bundles/cell_unet/docs/data_license.txt)" in pages[page]


def test_what_was_not_measured_is_said(repository):
    (repository / "bundles" / "cell_unet" / "docs" / "figures.json").write_text("[]")
    page = write_page(repository, "bundles")
    assert tables.render(repository)[page].count("| not measured ") == 3


def test_damaged_pages_and_metadata_are_named(repository):
    page = write_page(repository, "nonsense")
    with pytest.raises(ConfigError, match=r"page\.md: no table 'nonsense'.*bundles"):
        tables.render(repository)
    page.write_text("<!-- generated: bundles -->")
    with pytest.raises(ConfigError, match=r"page\.md: .*does not end"):
        tables.render(repository)
    write_page(repository, "bundles")
    (repository / "bundles" / "cell_unet" / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"cell_unet.*metadata\.json has no 'weights'"):
        tables.render(repository)
