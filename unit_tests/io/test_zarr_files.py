"""OME-Zarr: every usual codec, and stores that lead elsewhere, run code or need much memory."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from unit_tests.io.ome_files import opened

from cellbundle.errors import ImageReadError
from cellbundle.io import read_image
from cellbundle.io.images import zarr_chunks

zarr = pytest.importorskip("zarr", reason="zarr is not installed")
numcodecs = pytest.importorskip("numcodecs")
codecs = zarr.codecs

PIXELS = np.random.default_rng(0).integers(0, 65536, (2, 64, 48), np.uint16)
warnings.filterwarnings("ignore", module="zarr|numcodecs")


@pytest.fixture
def store(tmp_path):
    """Makes a store; options go to the array."""

    def make(version=3, **options):
        group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
        options = {"chunks": (1, 32, 32)} | options
        group.create_array("0", shape=PIXELS.shape, dtype=PIXELS.dtype, **options)[...] = PIXELS
        scales = [{"axes": [{"name": name} for name in "cyx"], "datasets": [{"path": "0"}]}]
        group.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"multiscales": scales}})
        return tmp_path / "a.zarr"

    return make


def edit(path, **changes):
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | changes))


@pytest.mark.parametrize(
    "options",
    [
        *({"compressors": name} for name in ("auto", None)),
        *({"compressors": getattr(codecs, name)()} for name in ("GzipCodec", "ZstdCodec", "BloscCodec")),
        {"compressors": [codecs.GzipCodec(), codecs.Crc32cCodec()]},
        {"filters": [codecs.TransposeCodec(order=(2, 0, 1))]},
        {"chunks": (1, 16, 16), "shards": (1, 32, 32)},
        {"chunks": (1, 16, 16), "shards": (2, 64, 48), "compressors": codecs.BloscCodec()},
        {"chunks": (1, 16, 16), "shards": (1, 32, 32), "compressors": [codecs.GzipCodec(), codecs.Crc32cCodec()]},
        {"version": 2},
        *(
            {"version": 2, "compressors": getattr(numcodecs, name)()}
            for name in ("Zstd", "GZip", "Zlib", "LZ4", "Blosc")
        ),
        {"version": 2, "compressors": None, "filters": [numcodecs.Delta("<u2")]},
        {"version": 2, "filters": [numcodecs.Shuffle(2)]},
        {"version": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    ],
)
def test_stores_that_are_read(store, options):
    path = store(**options)
    with opened() as paths:
        assert np.array_equal(read_image(path).data, PIXELS)
    assert all(name.startswith(str(path)) for name in paths if str(path.parent) in name)


def test_chunks_that_are_not_there_are_filled(store):
    path = store(2, chunks=(2, 32, 48), fill_value=7)
    (path / "0" / "0.1.0").unlink()
    data = read_image(path).data
    assert np.array_equal(data[:, :32], PIXELS[:, :32])
    assert (data[:, 32:] == 7).all()


@pytest.mark.parametrize("name", ["../other", "/etc", "0/../0", "", ".", "..\\0", "link", 7, None, "missing"])
def test_arrays_outside_of_the_store(store, name):
    path = store(2)
    (path / "0").rename(path.parent / "other")
    (path / "link").symlink_to(path.parent / "other")
    (path / "0").mkdir()
    edit(path / ".zattrs", multiscales=[{"datasets": [{"path": name}]}])
    with opened() as paths, pytest.raises(ImageReadError, match=r"a\.zarr.*array.*folder of the store"):
        read_image(path)
    assert {Path(one).name for one in paths if str(path) in one} <= {".zattrs"}


@pytest.mark.parametrize("name", ["0/0.0.0", "0/.zarray", "0/.zattrs", ".zattrs"])
@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_files_that_are_links_or_pipes(store, name, kind):
    path = store(2) / name
    other = path.rename(path.parents[name.count("/") + 1] / "other")
    path.symlink_to(other) if kind == "link" else os.mkfifo(path)
    with opened() as paths, pytest.raises(ImageReadError, match=r"link|FIFO"):
        read_image(path.parents[name.count("/")])
    assert str(path) not in paths


REFUSED = {  # changes of the metadata of an array, and the reason, by version
    2: [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, r"type \|O.*integers or floats"),
        ({"dtype": [["a", "<u2"]]}, r"type \[\['a', '<u2'\]\].*integers or floats"),
        ({"dtype": "<c8"}, "type <c8.*integers or floats"),
        ({"filters": [{"id": "pickle"}]}, "pickle.*not read.*blosc, gzip"),
        ({"compressor": {"id": "pickle"}}, "pickle.*not read.*blosc, gzip"),
        ({"filters": [{"id": "zlib"}]}, "zlib.*not read.*blosc, gzip"),
        ({"chunks": [1, 1, 1], "shape": [1, 20_000, 20_000]}, "400000000 chunks.* 131072"),
        ({"chunks": [1, 32]}, r"chunks.*\(1, 32\)"),
        ({"chunks": [1, 0, 32]}, r"chunks.*\(1, 0, 32\)"),
        ({"shape": [1, 64.5, 48]}, r"\[1, 64\.5, 48\].*whole numbers"),
        ({"shape": [1, 10**9, 10**9], "chunks": [1, 10**9, 10**9]}, "1000000000000000000 pixels.*max_pixels"),
        ({"chunks": [1, 10**6, 10**6]}, " 1000000000000 pixels.*max_pixels"),
    ],
    3: [
        ({"data_type": {"name": "numpy.datetime64"}}, "type .*datetime64.*integers or floats"),
        ({"data_type": "string"}, "type string.*integers or floats"),
        ({"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]}, "pickle.*not read.*blosc, gzip"),
        ({"storage_transformers": [{"name": "x"}]}, "storage transformers"),
        ({"codecs": [{"name": "sharding_indexed"}, {"name": "zstd"}]}, "shards.*sharding_indexed, zstd"),
    ],
}


@pytest.mark.parametrize(
    ("version", "changes", "message"), [(version, *case) for version, cases in REFUSED.items() for case in cases]
)
def test_metadata_that_are_refused(store, version, changes, message):
    path = store(version)
    edit(path / "0" / {2: ".zarray", 3: "zarr.json"}[version], **changes)
    with pytest.raises(ImageReadError, match=message):
        read_image(path)


def test_large_and_deep_metadata(store):
    path = store(2)
    for text, message in (
        ("[" * 10**5 + "]" * 10**5, "cannot be decoded"),
        ('"' + "x" * 2**24 + '"', "more than 16777216"),
    ):
        (path / ".zattrs").write_text(text)
        with pytest.raises(ImageReadError, match=message):
            read_image(path)


@pytest.mark.parametrize("name", ["GZip", "Zlib", "Zstd", "Blosc", "LZ4"])
def test_chunks_that_decode_to_more_than_their_shape(store, name):
    codec = getattr(numcodecs, name)()
    path = store(2, compressors=codec)
    (path / "0" / "0.0.0").write_bytes(codec.encode(bytes(2**20)))
    with pytest.raises(ImageReadError, match=r"chunk.* 2048 bytes|too large chunk"):
        read_image(path)


def test_gzip_members_one_after_the_other(store):
    path = store(2, compressors=numcodecs.GZip())
    (path / "0" / "0.0.0").write_bytes(numcodecs.GZip().encode(bytes(2048)) * 50)
    with pytest.raises(ImageReadError, match=r"chunk.* 2048 bytes"):
        read_image(path)


def test_a_chunk_in_a_shard_that_decodes_to_more(store):
    path = store(3, chunks=(1, 16, 16), shards=(1, 32, 32), compressors=codecs.GzipCodec())
    shard = path / "0" / "c" / "0" / "0" / "0"
    bomb = numcodecs.GZip().encode(bytes(2**20))
    index = np.frombuffer(shard.read_bytes()[-68:-4], "<u8").copy()
    index[:2] = 0, len(bomb)
    shard.write_bytes(bomb + shard.read_bytes()[:-68] + index.tobytes() + bytes(4))
    with pytest.raises(ImageReadError, match=r"chunk.* 512 bytes"):
        read_image(path)
    index[:2] = 0, 2**40
    shard.write_bytes(index.tobytes() + bytes(4))
    with pytest.raises(ImageReadError, match="damaged shard"):
        read_image(path)


def test_files_that_are_too_large(store):
    path = store(2)
    (path / "0" / "0.0.0").write_bytes(bytes(2**16))
    with pytest.raises(ImageReadError, match=r"65536 bytes.*\(0\.0\.0\)"):
        read_image(path)


def test_too_many_files(store, monkeypatch):
    path = store(2)
    monkeypatch.setattr(zarr_chunks, "MAX_FILES", 5)
    with pytest.raises(ImageReadError, match=r"a\.zarr.* 5 files"):
        read_image(path)
