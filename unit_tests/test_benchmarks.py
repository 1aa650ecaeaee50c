"""The benchmarks of whole bundles run, and their pages say what was compared."""

import json
import sys
from pathlib import Path

import pytest

from cellbundle.synthetic import write_dataset

from . import forked

ROOT = Path(__file__).resolve().parents[1]


def run(script, *arguments):
    command = [sys.executable, str(ROOT / "scripts" / "benchmarks" / script), *map(str, arguments)]
    done = forked.run(command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(page, first):
    """The rows of the table whose header begins with ``first``: dictionaries of cells by column."""
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line[1:-1].split("|")])
    return [dict(zip(table[0], row, strict=True)) for row in table[2:]]


@pytest.mark.slow
def test_the_stages_of_a_bundle_beside_the_reference(tmp_path):
    pytest.importorskip("cellpose")
    page = tmp_path / "page.md"
    options = ["--sizes", "256x352", "--repeats", "1", "--sample", "1", "--variants", "our path", "--parts", "stages"]
    text = run("end2end.py", "--bundle", "cell_unet", "--device", "cpu", *options, "--output", page)
    assert page.read_text().strip() == text.strip()
    reference, ours = rows(text, "path")
    assert (reference["path"], ours["path"]) == ("reference path", "our path")
    assert reference["windows"] == ours["windows"] == "1 of 2 timed"
    assert float(reference["F1@.5"]) == 1
    assert float(ours["network, difference"]) < 1e-4


@pytest.mark.slow
def test_every_data_set_has_a_row(tmp_path):
    write_dataset(tmp_path, n_training=4, n_testing=2, kinds=("fluorescence",))
    (tmp_path / "dsb2018.json").write_text(json.dumps({"training": [], "testing": []}))
    measured, empty = f"{tmp_path}/datalist.json:{tmp_path}", f"{tmp_path}/dsb2018.json:{tmp_path}"
    found = rows(run("scores.py", "--bundle", "cell_unet", measured, empty), "data")
    assert found[0]["data"] == "datalist"
    assert found[0]["n"] == "2"
    assert float(found[0]["AP@.5"]) > 0.5
    by_name = {row["data"]: row["AP@.5"] for row in found}
    assert by_name["DSB2018"].startswith("not measured: ")
    assert by_name["LIVECell"].startswith("not measured: no data list here")
    assert str(tmp_path) not in by_name["DSB2018"]


@pytest.mark.slow
def test_the_conversion_of_mask_files_beside_the_plain_loop(tmp_path):
    page = tmp_path / "page.md"
    text = run("prepare.py", "--images", "3", "--cells", "20", "--repeats", "1", "--output", page)
    assert page.read_text().strip() == text.strip()
    assert [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")][1:] == [
        [f" {name} ", f" {n} "] for name, n in (("plain loop", 1), ("convert", 1), ("convert", 2), ("prepare", 2))
    ]
    assert "visible cells" in text
