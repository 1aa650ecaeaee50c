"""Images and label maps as texts."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cellbundle.errors import ArrayError, ConfigError, ImageReadError
from cellbundle.mlflow_model.answer import describe_labels, read_encoded

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


def encoded(kind="PNG", array=GREY):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def bomb(side=60000):
    """A PNG of a few bytes that says it has 3.6 gigapixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + parts).decode()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("wrap", ["{}", "data:image/png;base64,{}", "\n {}\n"])
def test_images_are_read(kind, wrap):
    image = read_encoded(wrap.format(encoded(kind)), 100)
    assert image.shape == (1, 3, 4)
    assert np.array_equal(image[0], GREY)


def test_jpeg_is_read():
    assert read_encoded(encoded("JPEG", np.full((3, 4, 3), 9, np.uint8)), 100).shape == (3, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (7, "int.*base64"),
        ("!", "is not base64"),
        ("é", "is not base64"),
        ("", "is empty"),
        (base64.b64encode(b"hello").decode(), "not a PNG, JPEG, BMP or TIFF"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\nhello").decode(), "cannot be decoded"),
        (encoded()[:60], "cannot be decoded|is not base64"),
        (encoded(array=np.zeros((11, 10), np.uint8)), " 110 pixels.*max_pixels=100"),
        (bomb(), " 3600000000 pixels.*max_pixels=100"),
    ],
)
def test_bad_images_are_refused_without_the_name_of_a_file(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ImageReadError, match=message) as raised:
        read_encoded(text, 100)
    assert str(tmp_path) not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_label_maps():
    labels = np.array([[0, 1, 300], [2, 2, 0]], np.int32)
    answer = describe_labels(labels, "png")
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["labels"]))))
    assert np.array_equal(decoded, labels)
    assert (answer["shape"], answer["n"]) == ([2, 3], 300)
    assert describe_labels(labels, "list") == {"labels": [[0, 1, 300], [2, 2, 0]], "shape": [2, 3], "n": 300}


def test_more_instances_than_a_png_holds():
    labels = np.array([[65536]], np.int32)
    with pytest.raises(ArrayError, match=r"65536 instances.*format list"):
        describe_labels(labels, "png")
    assert describe_labels(labels, "list")["labels"] == [[65536]]


def test_an_unknown_format():
    with pytest.raises(ConfigError, match=r"format.*'tiff'.*png, list"):
        describe_labels(np.zeros((1, 1), np.int32), "tiff")
