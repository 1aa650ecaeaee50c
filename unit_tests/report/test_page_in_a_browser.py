"""The script of the results page, in a browser without a window."""

import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from .conftest import failure, result, write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"),
]

# What a reader does, with the state of the page after each step.
DRIVE = """
<script>addEventListener("load", () => {
  const $ = (s) => document.querySelector(s);
  const texts = (s) => [...document.querySelectorAll(s)].map((e) => e.textContent);
  const key = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const faded = () => getComputedStyle($(".over")).opacity, said = {};
  document.querySelector("style").append("* { transition: none !important }");
  const head = document.querySelectorAll("thead button")[1];
  head.click(); said.up = texts(".card h3"); said.aria = head.parentElement.ariaSort;
  head.click(); said.down = texts(".card h3"); said.rows = texts("#table tbody th");
  $("#order").value = "-1"; $("#order").dispatchEvent(new Event("change"));
  said.given = texts(".card h3"); $("#direction").click(); said.reversed = texts(".card h3");
  $("#filter").value = "TIF 1"; $("#filter").dispatchEvent(new Event("input"));
  said.filtered = texts(".card:not([hidden]) h3"); said.shown = $("#shown").textContent;
  $("#filter").value = ""; $("#filter").dispatchEvent(new Event("input"));
  key("o"); said.off = faded(); key("o"); said.on = faded();
  $("#i0 .pic").click(); said.open = [$("#viewer").open, $("#viewer-name").textContent, $(".stack").children.length];
  key("ArrowRight"); said.right = $("#viewer-name").textContent;
  key("ArrowLeft"); key("ArrowLeft"); said.stopped = [$("#viewer-name").textContent, $("#previous").disabled];
  key("z"); said.zoomed = $(".stack").clientWidth > 2 * $(".stage").clientWidth;
  $("#close").click(); said.closed = $("#viewer").open;
  $("[data-view=table]").click(); said.views = [$(".gallery").checkVisibility(), $("#table").checkVisibility()];
  said.width = document.documentElement.scrollWidth - innerWidth;
  document.documentElement.dataset.said = JSON.stringify(said);
})</script>
"""


def browse(tmp_path, page, *options):
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}", *options, (tmp_path / page).as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode()


def with_pictures(folder):
    results = [result(f"{n} <b>&#.tif", n) for n in (10, 2, 100)]
    for i, path in enumerate(path for r in results for path in (r.picture, r.overlay)):
        Image.new("RGBA", (64, 48), (200, 40 * i, 90, 255)).save(folder / path)
    return [results[0], failure("x.tif"), *results[1:]]


@pytest.mark.parametrize("width", [500, 1280])  # Chromium makes no narrower window
def test_in_a_browser(tmp_path, width):
    page = write(tmp_path, with_pictures(tmp_path))
    (tmp_path / "driven.html").write_text(page.source + DRIVE, "utf-8")
    dom = browse(tmp_path, "driven.html", f"--window-size={width},900", "--dump-dom")
    assert 'data-script="ready"' in dom
    said = json.loads(html.unescape(re.search(r'data-said="([^"]*)"', dom)[1]))
    ten, two, hundred = (f"{n} <b>&#.tif" for n in (10, 2, 100))
    assert said == {
        "up": [two, ten, hundred], "aria": "ascending", "down": [hundred, ten, two],
        "rows": [hundred, ten, two, "x.tif"], "given": [ten, two, hundred], "reversed": [hundred, two, ten],
        "filtered": [hundred, ten], "shown": "2 of 4", "off": "0", "on": "1",
        "open": [True, ten, 2], "right": ten, "stopped": [hundred, True], "zoomed": True, "closed": False,
        "views": [False, True], "width": 0,
    }  # fmt: skip


def test_picture_of_the_page_is_not_blank(tmp_path):
    write(tmp_path, with_pictures(tmp_path))
    browse(tmp_path, "index.html", f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1280,1600")
    shot = np.asarray(Image.open(io.BytesIO((tmp_path / "shot.png").read_bytes())).convert("RGB"))
    assert shot.shape == (1600, 1280, 3)
    assert shot.std() > 5
    assert len(np.unique(shot.reshape(-1, 3), axis=0)) > 50
