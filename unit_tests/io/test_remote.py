"""Copies of folders elsewhere: what is fetched, what is sent, and what happens when it cannot be."""

import traceback
from pathlib import Path

import pytest

from cellbundle.errors import CellBundleError, ConfigError, DependencyError
from cellbundle.io import remote
from cellbundle.io.remote import Copy, Mirror, RemoteError, is_url, open_url

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLBUNDLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    """An empty folder elsewhere."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    (tmp_path / "there").mkdir()
    return "memory://there" if request.param == "memory" else f"file://{tmp_path}/there"


def write(url, name, content):
    files, root = fsspec.url_to_fs(url)
    files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
    files.pipe_file(f"{root}/{name}", content)


def read(url, name):
    files, root = fsspec.url_to_fs(url)
    return files.cat_file(f"{root}/{name}")


def names(url):
    files, root = fsspec.url_to_fs(url)
    return sorted(path[len(root) + 1 :] for path in files.find(root))


@pytest.fixture
def fetched(monkeypatch):
    """Names of the files that were copied here."""
    got = []
    original = Copy._get
    monkeypatch.setattr(Copy, "_get", lambda self, name, version: (got.append(name), original(self, name, version)))
    return got


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("s3://bucket/cells", True),
        ("memory://x", True),
        ("file:///data", True),
        ("dbfs:/Volumes/a/b/c", True),
        ("dbfs:/cells", True),
        ("/Volumes/a/b/c", False),
        ("data/cells", False),
        ("C:/cells", False),
        (None, False),
    ],
)
def test_which_roots_are_elsewhere(value, expected):
    assert is_url(value) is expected


def test_an_address_that_lost_a_slash_is_an_error():
    with pytest.raises(ConfigError, match=r"write s3://"):
        is_url("s3:/bucket/cells")


def test_a_chain_of_addresses_is_an_error():
    with pytest.raises(ConfigError, match=r"simplecache::s3://b/x.*chain") as error:
        is_url("simplecache::s3://KEY:secret@b/x")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("address", ["memory://KEY:secret@lab", "memory://KEY:se/cret@lab/", "memory://lab?sig=secret"])
def test_the_folder_here_does_not_tell_the_password(address):
    copy = Copy(address)
    assert copy.local.name.startswith("lab-")
    assert "cret" not in str(copy.local)
    assert copy.local not in (Copy("memory://lab").local, Copy(address.replace("cret", "x")).local)


def test_a_query_follows_the_names_there(fetched):
    write("memory://lab", "a.json?sig=secret", b"1")
    copy = Copy("memory://lab", query="?sig=secret")
    assert copy.fetch(["a.json", "b.json"]) == ["b.json"]
    assert (copy.local / "a.json").read_bytes() == b"1"
    assert "secret" not in (copy.local / remote.STATE).read_text()
    assert copy.local != Copy("memory://lab").local


def test_errors_show_no_part_of_the_address(monkeypatch):
    mirror = Mirror("memory://KEY:secret@lab")
    (mirror.local / "model.pt").write_bytes(b"weights")

    def fail(self, *args, **options):
        raise PermissionError(13, "Access denied", args[-1])

    monkeypatch.setattr(type(mirror.files), "put_file", fail)
    with pytest.raises(RemoteError, match=r"^memory://lab: PermissionError: .*'/lab/model\.pt'") as error:
        mirror.push()
    assert "secret" not in "".join(traceback.format_exception(error.value))


def test_only_named_files_are_copied_and_only_once(url, fetched):
    for name in ("images/a.png", "images/b.png", "other.png"):
        write(url, name, name.encode())
    copy = Copy(url)
    assert copy.fetch(["images/a.png", "none.png"]) == ["none.png"]
    assert (copy.local / "images/a.png").read_bytes() == b"images/a.png"
    assert Copy(url).fetch(["images/a.png", "images/b.png"]) == []
    assert fetched == ["images/a.png", "images/b.png"]
    assert not (copy.local / "other.png").exists()


def test_a_file_that_changed_there_is_copied_again(url, fetched):
    write(url, "a.png", b"old")
    Copy(url).fetch(["a.png"])
    write(url, "a.png", b"new")
    copy = Copy(url)
    copy.fetch(["a.png"])
    assert (copy.local / "a.png").read_bytes() == b"new"
    assert fetched == ["a.png"] * 2


def test_a_damaged_copy_is_made_again(url):
    write(url, "a.png", b"whole")
    copy = Copy(url)
    copy.fetch(["a.png"])
    (copy.local / "a.png").write_bytes(b"who")
    Copy(url).fetch(["a.png"])
    assert (copy.local / "a.png").read_bytes() == b"whole"


def test_a_folder_is_copied_with_all_in_it(url):
    write(url, "a.zarr/zarr.json", b"{}")
    write(url, "a.zarr/c/0/0", b"chunk")
    copy = Copy(url)
    assert copy.fetch(["a.zarr"]) == []
    assert (copy.local / "a.zarr/c/0/0").read_bytes() == b"chunk"


def test_a_copy_that_breaks_off_is_an_error_and_leaves_nothing(url, monkeypatch):
    write(url, "a.png", b"whole")
    copy = Copy(url)
    monkeypatch.setattr(type(copy.files), "get_file", lambda self, there, here: Path(here).touch())
    with pytest.raises(RemoteError, match=r"a\.png.* 0 of 5 bytes"):
        copy.fetch(["a.png"])
    assert [path.name for path in copy.local.iterdir()] == [remote.STATE]


def test_outputs_are_sent_when_they_change_and_removed_when_they_go(url):
    mirror = Mirror(url)
    (mirror.local / "eval").mkdir()
    (mirror.local / "eval/a.csv").write_bytes(b"1")
    (mirror.local / "model.pt").write_bytes(b"weights")
    (mirror.local / ".half.pt").write_bytes(b"half")
    mirror.push()
    assert names(url) == ["eval/a.csv", "model.pt"]
    (mirror.local / "model.pt").write_bytes(b"better weights")
    (mirror.local / "eval/a.csv").unlink()
    assert mirror.pending() == ["model.pt"]
    mirror.push()
    assert names(url) == ["model.pt"]
    assert read(url, "model.pt") == b"better weights"


def test_nothing_is_removed_that_this_run_did_not_have(url):
    mirror = Mirror(url)
    (mirror.local / "model.pt").write_bytes(b"weights")
    mirror.push()
    (mirror.local / "model.pt").unlink()
    Mirror(url).push()
    assert names(url) == ["model.pt"]


def test_results_that_were_not_sent_are_not_overwritten(url):
    write(url, "latest.pt", b"epoch 1")
    mirror = Mirror(url)
    mirror.fetch(["latest.pt"])
    (mirror.local / "latest.pt").write_bytes(b"epoch 12")
    again = Mirror(url)
    again.fetch(["latest.pt"])
    assert (again.local / "latest.pt").read_bytes() == b"epoch 12"
    write(url, "latest.pt", b"epoch 3 of another")
    with pytest.raises(CellBundleError, match=r"latest\.pt.*never sent"):
        again.fetch(["latest.pt"])


def test_what_another_machine_sent_is_fetched(url):
    mirror = Mirror(url)
    (mirror.local / "latest.pt").write_bytes(b"epoch 1")
    mirror.push()
    write(url, "latest.pt", b"epoch 2")
    again = Mirror(url)
    again.fetch(["latest.pt"])
    assert (again.local / "latest.pt").read_bytes() == b"epoch 2"


def test_a_file_system_that_fails_is_one_kind_of_error(url, monkeypatch):
    mirror = Mirror(url)
    (mirror.local / "model.pt").write_bytes(b"weights")

    def fail(self, *args, **options):
        raise TimeoutError("no answer")

    monkeypatch.setattr(type(mirror.files), "put_file", fail)
    with pytest.raises(RemoteError, match="TimeoutError: no answer"):
        mirror.push()
    assert mirror.pending() == ["model.pt"]


def test_missing_packages_are_named(monkeypatch):
    from fsspec.registry import known_implementations

    monkeypatch.setitem(
        known_implementations, "cloud", {"class": "nowhere.Cloud", "err": "Install cloudfs to access it"}
    )
    with pytest.raises(DependencyError, match="Install cloudfs to access it"):
        open_url("cloud://x")
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'cellbundle\[remote\]'"):
        open_url("memory://x")


def test_an_unknown_protocol():
    with pytest.raises(ConfigError, match=r"nothing://.*fsspec"):
        open_url("nothing://x")


@pytest.mark.parametrize(
    ("url", "path"),
    [("dbfs:/Volumes/a/b/c", "/Volumes/a/b/c"), ("dbfs:/cells", "/dbfs/cells"), ("dbfs:///cells/", "/dbfs/cells")],
)
def test_dbfs_is_read_where_it_is_mounted(url, path, monkeypatch):
    monkeypatch.setattr(remote.Path, "is_dir", lambda self: str(self) in ("/Volumes", "/dbfs"))
    files, root = open_url(url)
    assert ("file" in files.protocol, root) == (True, path)


def test_dbfs_without_a_mount_and_a_login():
    if Path("/dbfs").is_dir():
        pytest.skip("this is Databricks")
    with pytest.raises(RemoteError, match="instance"):
        open_url("dbfs:/cells")
