"""A download goes on where it stopped, but never glues parts of two files together."""

import pytest

from cellbundle.datasets.download import fetch
from cellbundle.errors import DatasetError

from .downloading import CONTENT, SHA256, names, stop_early


def ranges(server):
    return [headers.get("Range") for headers in server.requests]


def test_dropped_connection_goes_on(server, tmp_path):
    server.drops = [100_000, 150_000]
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=250000-"]
    assert server.requests[1]["If-Range"] == '"one"'


def test_killed_download_goes_on(server, tmp_path):
    def kill(done, _total):
        if done >= 131072:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path / "data.zip", progress=kill)
    assert names(tmp_path) == ["data.zip.incomplete", "data.zip.incomplete.json"]
    calls = []
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256, progress=lambda *call: calls.append(call))
    assert ranges(server) == [None, "bytes=131072-"]
    assert calls[0] == (131072 + 65536, 512000)
    assert names(tmp_path) == ["data.zip"]


def test_complete_part_is_not_fetched_again(server, tmp_path):
    def kill(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, tmp_path / "data.zip", progress=kill)
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert len(server.requests) == 1


def test_server_without_ranges_starts_anew(server, tmp_path):
    server.ranges = False
    server.drops = [100_000]
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert ranges(server) == [None, "bytes=100000-"]


@pytest.mark.parametrize("validators", [('"two"', None), (None, "Tue, 02 Jan 2024 00:00:00 GMT")])
@pytest.mark.parametrize("careless", [False, True])
def test_changed_file_is_not_glued_to_an_old_part(server, tmp_path, validators, careless):
    server.date = "Mon, 01 Jan 2024 00:00:00 GMT"
    stop_early(server, tmp_path / "data.zip")
    server.etag, server.date = validators
    server.content = CONTENT[::-1]
    server.careless = careless  # a server that does not know If-Range
    assert fetch(server.url, tmp_path / "data.zip").read_bytes() == CONTENT[::-1]


def test_date_where_the_tag_is_weak(server, tmp_path):
    server.etag, server.date = 'W/"one"', "Mon, 01 Jan 2024 00:00:00 GMT"
    stop_early(server, tmp_path / "data.zip")
    server.careless = True
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert server.requests[1]["If-Range"] == server.date
    assert ranges(server)[1] == "bytes=200000-"


def test_size_tells_a_changed_file_without_tag_and_date(server, tmp_path):
    server.etag = None
    stop_early(server, tmp_path / "data.zip")
    server.content = CONTENT[:-1]
    assert fetch(server.url, tmp_path / "data.zip").read_bytes() == CONTENT[:-1]
    assert ranges(server) == [None, "bytes=200000-", None]


def test_part_of_another_address_is_not_used(server, tmp_path):
    stop_early(server, tmp_path / "data.zip")
    fetch(server.url + "?version=2", tmp_path / "data.zip", sha256=SHA256)
    assert ranges(server) == [None, None]


def test_notes_hold_no_login_and_no_key(server, tmp_path):
    address = server.url.replace("//", "//me:secret@") + "?sig=secret"
    server.drops = [200_000] * 3
    with pytest.raises(DatasetError) as error:
        fetch(address, tmp_path / "data.zip", attempts=1)
    assert "secret" not in str(error.value)
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.iterdir())
    server.drops = []
    fetch(address, tmp_path / "data.zip", sha256=SHA256)
    assert ranges(server) == [None, "bytes=200000-"]


@pytest.mark.parametrize("notes", [None, b"{", b"[]", b'{"url": "x"}'])
def test_part_without_sound_notes_is_not_used(server, tmp_path, notes):
    (tmp_path / "data.zip.incomplete").write_bytes(b"something else")
    if notes is not None:
        (tmp_path / "data.zip.incomplete.json").write_bytes(notes)
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert ranges(server) == [None]


def test_part_with_too_many_bytes_is_dropped(server, tmp_path):
    stop_early(server, tmp_path / "data.zip")
    (tmp_path / "data.zip.incomplete").write_bytes(bytes(len(CONTENT) + 1))
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)


def test_file_that_became_shorter_than_the_part(server, tmp_path):
    stop_early(server, tmp_path / "data.zip")
    server.content = CONTENT[:1000]
    server.careless = True
    assert fetch(server.url, tmp_path / "data.zip").read_bytes() == CONTENT[:1000]
    assert ranges(server) == [None, "bytes=200000-", None]


@pytest.mark.parametrize("statuses", [[503], [500, 429]])
def test_passing_errors_are_tried_again(server, tmp_path, statuses):
    server.statuses = list(statuses)
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert len(server.requests) == len(statuses) + 1


def test_gives_up_after_all_attempts_and_keeps_the_part(server, tmp_path):
    server.drops = [1000, 2000, 3000]
    with pytest.raises(DatasetError, match=r"6000 of 512000 bytes.*same command"):
        fetch(server.url, tmp_path / "data.zip")
    assert (tmp_path / "data.zip.incomplete").read_bytes() == CONTENT[:6000]
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
    assert ranges(server)[3] == "bytes=6000-"


def test_part_that_is_there_needs_no_more_space(server, tmp_path, leave_free):
    stop_early(server, tmp_path / "data.zip")
    leave_free(2**26 + 312_000)
    fetch(server.url, tmp_path / "data.zip", sha256=SHA256)
