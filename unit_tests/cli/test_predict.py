"""``cellbundle predict`` as people call it."""

import io
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from cellbundle.cli import main
from cellbundle.inference.batch import pipeline
from cellbundle.inference.batch.formats import FORMATS
from cellbundle.io import read_labels
from cellbundle.synthetic import generate

from ..words import Like
from .conftest import call


@pytest.fixture(scope="module")
def cells():
    return generate("fluorescence", (96, 128), 12, diameter=16, seed=3)[0]


@pytest.fixture
def images(tmp_path, cells):
    folder = tmp_path / "my images"
    (folder / "plate 1").mkdir(parents=True)
    tifffile.imwrite(folder / "a.tif", cells)
    tifffile.imwrite(folder / "plate 1" / "ü.TIF", cells[:, ::-1])
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_run_that_fails_at_once_leaves_nothing_that_stops_the_next_one(images, tmp_path, capsys):
    (images / "link.png").symlink_to("nothing.png")
    assert call("predict", images, "--output", tmp_path / "out", "--device", "cuda:99") == 2
    assert (tmp_path / "out" / "failures.csv").exists()
    assert call("predict", images, "--output", tmp_path / "out", "--device", "cpu", "--save", "labels") == 1
    assert "--replace-foreign" not in capsys.readouterr().err


def test_a_folder_with_a_bad_file(images, tmp_path, capsys):
    (images / "bad.png").write_text("text")
    (images / "a_cp_masks.tif").write_bytes((images / "a.tif").read_bytes())
    out = tmp_path / "out"
    assert call("predict", images, "--output", out, "--device", "cpu") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(out / "index.html")
    assert "3 images" in printed.out
    assert re.search(r"1 failed, 1 other files.*1 label files.*\(a_cp_masks\.tif\)", printed.out)
    assert "computing on cpu" in printed.err
    assert "tile" in printed.err
    assert [line for line in printed.err.splitlines() if line.startswith("error")] == [
        Like(r"^error: .*bad\.png.*not a PNG, JPEG, BMP or TIFF.*convert")
    ]
    assert pd.read_csv(out / "failures.csv")["image"].tolist() == ["bad.png"]
    counts = pd.read_csv(out / "images.csv").set_index("image")["cells"]
    assert (counts > 3).all()
    rows = pd.read_csv(out / "measurements.csv")
    assert rows.groupby("image").size().to_dict() == counts.to_dict()
    for base in ("a", "plate 1/ü"):
        labels = read_labels(out / f"{base}_labels.tif")
        assert labels.shape == (96, 128)
        assert (out / f"{base}_overlay.png").is_file()
        assert len(np.unique(labels)) - 1 == counts[f"{base}.{'tif' if base == 'a' else 'TIF'}"]
    page = (out / "index.html").read_text()
    assert "bad.png" in page
    assert "previews/plate%201/%C3%BC.jpg" in page


def test_a_rerun_goes_on_and_other_settings_do_not_mix(images, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert call("predict", images, "-o", out) == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*_labels.tif")}
    table = (out / "measurements.csv").read_text()
    monkeypatch.setattr(pipeline, "segment_all", None)  # nothing may be segmented again
    assert call("predict", images, "-o", out) == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*_labels.tif")} == before
    assert (out / "measurements.csv").read_text() == table
    assert "2 of 2 images are finished" in capsys.readouterr().err
    assert call("predict", images, "-o", out, "--diameter", 30) == 2
    assert re.search(r"a\.tif.*diameter 'auto', not 30\.0 \(1 more\).*--overwrite", capsys.readouterr().err)


def test_files_of_others_are_named_and_stay(images, tmp_path, capsys):
    """Every name that we would write, in a folder without results, for a good and a bad image."""
    (images / "bad.png").write_text("text")
    names = [f"{base}{f.suffix}" for base in ("a", "bad") for f in FORMATS.values()]
    names += [f"previews/{base}{suffix}" for base in ("a", "bad") for suffix in (".jpg", "_outlines.png")]
    names += ["index.html", "images.csv", "failures.csv", "measurements.csv", "measurements.parquet"]
    out = tmp_path / "out"
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    command = ("predict", images, "--output", out, "--device", "cpu", "--save")
    for kinds in (",".join(FORMATS), "labels", "measurements,page"):
        for options in ((), ("--overwrite",)):
            assert call(*command, kinds, *options) == 2
            assert re.search(r" images\.csv, failures\.csv.*--replace-foreign", capsys.readouterr().err)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == set(names)
    assert all((out / name).read_text() == "mine" for name in names)
    assert call(*command, "labels", "--replace-foreign") == 1, "bad.png fails"
    assert (out / "bad_labels.tif").exists() is False, "it was to be replaced"
    assert (out / "a_labels.tif").stat().st_size > 100
    assert (out / "a_seg.npy").read_text() == (out / "bad_seg.npy").read_text() == "mine", "not among what was saved"
    assert call(*command, "labels") == 1, "now they are our own"


def test_what_is_saved_can_be_chosen(images, tmp_path):
    out = tmp_path / "out"
    kinds = "labels,geojson,imagej,coco,kaggle,cellpose,parquet"
    assert call("predict", images / "a.tif", "-o", out, "--save", kinds) == 0
    names = {p.name for p in out.iterdir()}
    assert names == {
        "a_labels.tif",
        "a.geojson",
        "a_rois.zip",
        "a_coco.json",
        "a_rle.csv",
        "a_seg.npy",
        "measurements.parquet",
        "images.csv",
        ".cellbundle",
    }
    features = json.loads((out / "a.geojson").read_text())["features"]
    assert len(features) == read_labels(out / "a_labels.tif").max()
    other = tmp_path / "other"
    assert call("predict", images / "a.tif", "-o", other, "--no-overlay", "--no-measurements", "--no-page") == 0
    assert {p.name for p in other.iterdir()} == {"a_labels.tif", "images.csv", ".cellbundle"}


def test_diameter_and_channels_reach_the_network(tmp_path, cells, capsys):
    channels = np.stack([cells * 0, cells, cells * 0, cells * 0])
    tifffile.imwrite(tmp_path / "a.tif", channels, metadata={"axes": "CYX"}, photometric="minisblack")
    out = tmp_path / "out"
    assert call("predict", tmp_path / "a.tif", "-o", out, "--save", "labels") == 1
    assert re.search(r"a\.tif.* has 4;.*channels=", capsys.readouterr().err)
    assert call("predict", tmp_path / "a.tif", "-o", tmp_path / "b", "--channels", "1", "--diameter", 31.5) == 0
    assert "scale 1\n" in capsys.readouterr().err
    assert read_labels(tmp_path / "b" / "a_labels.tif").max() > 3


@pytest.fixture(scope="module")
def enlarged(tmp_path_factory):
    """Two images of nuclei of 80 pixels, one of nuclei of 18, and one without any."""
    folder = tmp_path_factory.mktemp("enlarged")
    for name, diameter, seed in (("a", 80, 1), ("b", 80, 2), ("c", 18, 3)):
        pixels, _ = generate("fluorescence", (384, 384), 14, diameter=diameter, touching=0.3, seed=seed)
        tifffile.imwrite(folder / f"{name}.tif", pixels)
    tifffile.imwrite(folder / "d.tif", np.zeros((64, 64), np.uint8))
    return folder


def test_the_size_of_cells_is_found_and_written(enlarged, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("predict", enlarged, "-o", out) == 0
    printed = capsys.readouterr().err
    table = pd.read_csv(out / "images.csv").set_index("image")
    assert table["cells"].tolist()[:3] == pytest.approx([14] * 3, abs=2)
    assert table["diameter"].tolist()[:3] == pytest.approx([80, 80, 18], rel=0.25)
    assert (table["magnification"][:2] < 0.6).all()
    assert table["magnification"].tolist()[2:] == pytest.approx([1, 1], abs=0.2)
    assert re.search(r"a\.tif: cells of about [6-9]\d px, magnification 0\.[1-5]\d", printed)
    assert "d.tif: cells of unknown size, magnification 1.00" in printed
    page = (out / "index.html").read_text()
    assert "magnification" in page
    assert "diameter" in page
    again = (out / "images.csv").read_text()
    assert call("predict", enlarged, "-o", out) == 0
    assert pd.read_csv(out / "images.csv")["diameter"].equals(pd.read_csv(io.StringIO(again))["diameter"])


def test_one_size_for_a_folder(enlarged, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("predict", enlarged, "-o", out, "--diameter", "folder") == 0
    (size,) = re.findall(r"cells of about ([\d.]+) px in all images, found in 3 of them", capsys.readouterr().err)
    assert float(size) == pytest.approx(80, rel=0.25)
    table = pd.read_csv(out / "images.csv")
    assert table["diameter"].round(1).unique().tolist() == [float(size)]
    assert f"cells of about {float(size):.0f} px, magnification 0." in (out / "index.html").read_text()
    (out / "a_labels.tif").unlink()  # what is left says the size
    assert call("predict", enlarged, "-o", out, "--diameter", "folder") == 0
    assert pd.read_csv(out / "images.csv")["diameter"].round(1).unique().tolist() == [float(size)]


def test_a_folder_without_cells_has_no_size(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "d.tif", np.zeros((64, 64), np.uint8))
    assert call("predict", tmp_path / "d.tif", "-o", tmp_path / "out", "--diameter", "folder") == 0
    assert "no cells were found that show their size; the bundle's own scale is used" in capsys.readouterr().err


def test_without_a_size_the_scale_is_that_of_the_bundle(enlarged, tmp_path):
    out = tmp_path / "out"
    assert call("predict", enlarged / "a.tif", "-o", out, "--diameter", "none") == 0
    assert pd.read_csv(out / "images.csv")["magnification"].tolist() == [1]


@pytest.mark.parametrize("stain", ["none", "hematoxylin"])
def test_stains_can_be_chosen(tmp_path, stain):
    pixels, labels = generate("he", (128, 160), 20, diameter=18, touching=0, seed=2)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    assert call("predict", tmp_path / "a.tif", "-o", tmp_path / "out", "--stain", stain) == 0
    assert abs(read_labels(tmp_path / "out" / "a_labels.tif").max() - labels.max()) <= 6


def test_ctrl_c_keeps_what_is_finished(images, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    real = pipeline._segment_one

    def interrupted(job, *rest):
        if job.name != "a.tif":
            raise KeyboardInterrupt
        return real(job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_segment_one", interrupted)
        assert call("predict", images, "-o", out) == 130
    assert "same command" in capsys.readouterr().err
    assert read_labels(out / "a_labels.tif").max() > 3
    assert not [p for p in out.rglob("*") if p.name.startswith(".") and p.name != ".cellbundle"]
    first = (out / "a_labels.tif").stat().st_mtime_ns
    assert call("predict", images, "-o", out) == 0
    assert (out / "a_labels.tif").stat().st_mtime_ns == first
    assert len(pd.read_csv(out / "images.csv")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{missing}", "-o", "{out}"], "missing does not exist"),
        (["{images}", "-o", "{images}"], "input.*output.*--output"),
        (["{images}", "-o", "{out}", "--save", "labels,gif"], "gif.* labels"),
        (["{images}", "-o", "{out}", "--bundle", "nope"], "no bundle 'nope'"),
        (["{images}", "-o", "{out}", "--channels", "red"], "'red'.*commas"),
        (["{images}", "-o", "{out}", "--diameter", "-3"], "diameter.* -3.*above 0"),
        (["{images}", "-o", "{out}", "--diameter", "all"], "diameter is 'all', expected pixels, auto, folder or none"),
        (["{images}", "-o", "{out}", "--stain", "dab"], "stain is 'dab'; choose one of auto, none, hematoxylin"),
        (["{images}", "-o", "{out}", "--stain", "none", "--bundle", "vista2d"], "does not look at stains"),
        (["{images}", "-o", "{out}", "--diameter", "9", "--rescale", "2"], "diameter.*rescale.*choose one"),
        (["{images}", "-o", "{out}", "--tile", "100"], r"\[100, 100\].*multiples of 32"),
        (["{images}", "-o", "{out}", "--tile", "-32"], r"\[-32, -32\].*multiples of 32"),
        (["{images}", "-o", "{out}", "--diameter", "0.1"], "magnification.*pixels, not µm"),
        (["{images}", "-o", "{out}", "--min-score", "-1"], r"min_score.* -1\.0.* 0 "),
        (["{images}", "-o", "{out}", "--device", "tpu"], "'tpu'.*not available"),
        (["{images}/notes.txt", "-o", "{out}"], r"no images.*notes\.txt"),
        (["{images}"], "--output"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(images, tmp_path, capsys, arguments, message):
    places = {"images": images, "out": tmp_path / "out", "missing": tmp_path / "missing"}
    assert call("predict", *(a.format(**places) for a in arguments)) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed)
    assert "Traceback" not in printed


def test_a_checkpoint_of_another_network(images, tmp_path, capsys):
    import torch

    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    assert call("predict", images, "-o", tmp_path / "out", "--weights", tmp_path / "other.pt") == 1
    assert re.search(r"other\.pt.*another network", capsys.readouterr().err)


def test_debug_shows_where_an_error_comes_from(tmp_path):
    from cellbundle.errors import ConfigError

    with pytest.raises(ConfigError):
        main(["predict", str(tmp_path / "missing"), "-o", str(tmp_path / "out"), "--debug"])


def test_bad_files_are_named_each_in_one_line(images, tmp_path, capsys):
    good = (images / "a.tif").read_bytes()
    bad = {
        "cut.tif": good[: len(good) // 2],
        "zero.png": b"",
        "text.jpg": b"just text",
    }
    for name, content in bad.items():
        (images / name).write_bytes(content)
    tifffile.imwrite(images / "nan.tif", np.full((8, 8), np.nan, np.float32))
    tifffile.imwrite(images / "stack.tif", np.zeros((5, 32, 32), np.uint8), metadata={"axes": "ZYX"})
    tifffile.imwrite(images / "many.tif", np.zeros((6, 32, 32), np.uint8), metadata={"axes": "CYX"})
    out = tmp_path / "out"
    assert call("predict", images, "-o", out, "--save", "labels", "--max-pixels", 20_000) == 1
    failures = pd.read_csv(out / "failures.csv").set_index("image")["reason"]
    assert sorted(failures.index) == ["cut.tif", "many.tif", "nan.tif", "stack.tif", "text.jpg", "zero.png"]
    for name, word in {
        "nan.tif": "only NaN",
        "stack.tif": "z-stack",
        "many.tif": "channels=",
        "zero.png": "0 bytes",
    }.items():
        assert word in failures[name]
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 6
    assert not (out / "cut_labels.tif").exists()
    assert (out / "a_labels.tif").exists()


def test_too_many_pixels_are_refused_before_decoding(tmp_path, capsys):
    Image.new("L", (600, 600)).save(tmp_path / "big.png")
    assert call("predict", tmp_path / "big.png", "-o", tmp_path / "out", "--max-pixels", 1000) == 1
    assert re.search(r"big\.png.*360000 pixels.*max_pixels=1000", capsys.readouterr().err)


def test_without_a_terminal_there_is_no_progress_bar(images, tmp_path, capsys):
    assert call("predict", images, "-o", tmp_path / "out", "--save", "labels") == 0
    assert "%|" not in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="file names of bytes")
def test_a_name_that_is_not_utf8(images, tmp_path, cells):
    tifffile.imwrite(tmp_path / "x.tif", cells)
    odd = os.fsdecode(b"\xff.tif")
    (tmp_path / "x.tif").rename(images / odd)
    out = tmp_path / "out"
    assert call("predict", images / odd, "-o", out) == 0
    assert (out / os.fsdecode(b"\xff_labels.tif")).is_file()
