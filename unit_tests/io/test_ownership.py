"""Files that cellbundle wrote are known; all others are named and kept."""

from pathlib import Path

import pytest

from cellbundle.errors import ConfigError
from cellbundle.io.ownership import Manifest

from ..damage import damaged

FILES = [Path("a.csv"), Path("images/b ä.png"), Path("images/\udcff.png")]


def write(folder, *names, text="mine"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_own_files_are_no_conflict(tmp_path):
    Manifest(tmp_path).add(FILES)
    write(tmp_path, *FILES)
    Manifest(tmp_path).check(FILES)
    write(tmp_path, "other.csv")
    with pytest.raises(ConfigError, match=r" other\.csv;.*--replace-foreign"):
        Manifest(tmp_path).check([*FILES, Path("other.csv")])


def test_ten_of_many_conflicts_are_named(tmp_path):
    names = [Path(f"{number:02d}.png") for number in range(12)]
    write(tmp_path, *names)
    with pytest.raises(ConfigError, match=r"00\.png, .*, 09\.png and 2 more; "):
        Manifest(tmp_path).check(names)
    Manifest(tmp_path).check(names, replace_foreign=True)


def test_a_link_to_nothing_is_a_conflict(tmp_path):
    (tmp_path / "a.csv").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"a\.csv"):
        Manifest(tmp_path).check(FILES)


@pytest.mark.parametrize("name", ["images", ".cellbundle"])
def test_a_file_in_the_place_of_a_folder(tmp_path, name):
    write(tmp_path, name)
    with pytest.raises(ConfigError, match=f" {name};.*--replace-foreign"):
        Manifest(tmp_path).check(FILES)
    own = Manifest(tmp_path)
    own.check(FILES, replace_foreign=True)
    own.add(FILES)
    assert not (tmp_path / name).is_file()


def test_folders_in_the_place_of_files_are_never_replaced(tmp_path):
    Manifest(tmp_path).add(FILES)
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ConfigError, match=r"folders.* a\.csv;.*move"):
        Manifest(tmp_path).check(FILES, replace_foreign=True)


def test_results_need_a_folder(tmp_path):
    write(tmp_path, "file")
    with pytest.raises(ConfigError, match="file is not a folder"):
        Manifest(tmp_path / "file").check(FILES)


def test_names_of_files_that_were_not_written_are_dropped(tmp_path):
    own = Manifest(tmp_path)
    own.add(FILES)
    write(tmp_path, "a.csv")
    own.forget_missing()
    write(tmp_path, *FILES)
    with pytest.raises(ConfigError, match=r"images/b ä\.png"):
        Manifest(tmp_path).check(FILES)
    Manifest(tmp_path).check([Path("a.csv")])


def test_only_own_files_are_removed(tmp_path):
    write(tmp_path, "a.csv", "b.csv")
    own = Manifest(tmp_path)
    own.add([Path("a.csv")])
    own.remove([Path("a.csv"), Path("b.csv"), Path("c.csv")])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cellbundle", "b.csv"]


@pytest.mark.parametrize("recover", [None, lambda: FILES], ids=["copy", "other records"])
def test_any_damage_of_the_list_is_survived(tmp_path, recover):
    Manifest(tmp_path, recover).add(FILES)
    Manifest(tmp_path, recover).add([*FILES, Path("c.csv")])
    path = tmp_path / ".cellbundle/files.json"
    expected = {path.as_posix() for path in FILES}
    for content in damaged(path.read_bytes(), 300):
        path.write_bytes(content)
        assert Manifest(tmp_path, recover).names in (expected, expected | {"c.csv"})
    path.unlink()
    assert Manifest(tmp_path, recover).names >= expected
    path.mkdir()
    assert Manifest(tmp_path, recover).names >= expected


def test_damaged_lists_without_other_records_leave_foreign_files_alone(tmp_path):
    Manifest(tmp_path).add(FILES)
    write(tmp_path, *FILES)
    for path in (tmp_path / ".cellbundle").iterdir():
        path.write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.csv"):
        Manifest(tmp_path).check(FILES)
