"""Every damage of a prepared folder is named, and nothing else."""

import shutil

import pandas as pd
import pytest

from cellbundle.datasets import Damage, verify
from cellbundle.datasets.convert import file_hash
from cellbundle.errors import DatasetError

from ..words import Like


def test_the_manifest_has_every_output_with_hash_size_count_and_source(out):
    table = pd.read_csv(out / "manifest.csv").set_index("path")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(table.index) == {name for name in files if not name.startswith(".")} - {"manifest.csv"}
    assert all(table.sha256[name] == file_hash(out / name) for name in table.index)
    assert all(table.bytes[name] == (out / name).stat().st_size for name in table.index)
    label = table.loc["labels/04aa.tif"]
    assert (label.instances, label.height, label.width) == (5, 20, 30)
    assert label.source == "stage1_train/04aa/masks/ (5 files)"
    assert table.source["images/04aa.png"] == "stage1_train/04aa/images/04aa.png"
    assert table.instances["dsb2018.json"] == sum(range(1, 13))


def test_a_sound_folder_has_no_damage(out):
    assert verify(out) == []
    (out / "notes.txt").write_text("files of the user do not matter")
    assert verify(out) == []


def test_each_damage_is_named_once(out):
    flipped = bytearray((out / "images/01aa.png").read_bytes())
    flipped[40] ^= 1
    (out / "images/01aa.png").write_bytes(flipped)
    (out / "labels/02aa.tif").unlink()
    (out / "labels/03aa.tif").write_bytes((out / "labels/09aa.tif").read_bytes())
    (out / "dsb2018.json").write_text("{}")
    steps = []
    assert verify(out, lambda done, total: steps.append((done, total))) == [
        Damage("dsb2018.json", Like(f"2 bytes.* {pd.read_csv(out / 'manifest.csv').bytes[0]}")),
        Damage("images/01aa.png", Like("other content.*same size")),
        Damage("labels/02aa.tif", "is missing"),
        Damage("labels/03aa.tif", Like(r"content of labels/09aa\.tif")),
    ]
    assert steps == [(n, 26) for n in range(1, 27)]


def test_a_changed_manifest_is_the_damage(out):
    text = (out / "manifest.csv").read_text()
    (out / "manifest.csv").write_text(text.replace(",20,30,5\n", ",20,30,6\n"))
    assert [damage.path for damage in verify(out)] == ["manifest.csv"]


@pytest.mark.parametrize(
    ("keep", "reason"), [(10, r"16 files of dsb2018\.json"), (1, "no data list")], ids=["cut off", "empty"]
)
def test_a_manifest_that_is_cut_off_is_noticed_without_its_hash(keep, reason, out):
    shutil.rmtree(out / ".cellbundle")
    lines = (out / "manifest.csv").read_text().splitlines(keepends=True)
    (out / "manifest.csv").write_text("".join(lines[:keep]))
    assert verify(out) == [Damage("manifest.csv", Like(f"{reason}.*prepare.*again"))]


@pytest.mark.parametrize(
    ("content", "message"), [(None, r"no manifest\.csv"), ("a,b\n1,2\n", r"manifest\.csv.*'a,b'.*prepare.*again")]
)
def test_without_a_manifest_nothing_can_be_verified(content, message, tmp_path):
    if content:
        (tmp_path / "manifest.csv").write_text(content)
    with pytest.raises(DatasetError, match=message):
        verify(tmp_path)
