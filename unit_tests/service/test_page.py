"""The page in a browser without a window, with the real service behind it."""

import base64
import io
import json
import time

import numpy as np
import pytest
import tifffile
from PIL import Image

from ..words import Like
from .browser import CHROMIUM, Browser
from .running import EXAMPLE, TOKEN, Service

pytest.importorskip("uvicorn")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"),
]
DONE = "document.querySelector('main').dataset.state === 'done' && !('busy' in document.querySelector('main').dataset)"
PROBLEM = "!document.querySelector('#problem').hidden"
BOX = "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('#canvas').getBoundingClientRect())"
FOCUS = "(({id, dataset, tagName}) => id || dataset.format || tagName)(document.activeElement)"
KEEP = "globalThis.kept = fetch; globalThis.fetch = "
DROP = """(bytes, name) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def service():
    with Service("--threads", 1, CELLBUNDLE_TOKEN=TOKEN) as service:
        yield service


@pytest.fixture
def page(service, tmp_path):
    with Browser(tmp_path) as browser:
        browser.open(f"http://127.0.0.1:{service.port}/")
        sign_in(browser, TOKEN)
        browser.wait("!document.querySelector('#options').hidden")
        browser.console.clear()  # of the refusal that asked for the token
        yield browser


def sign_in(browser, token):
    browser.wait("!document.querySelector('#login').hidden")
    browser.run(f"document.querySelector('#token').value = {json.dumps(token)}")
    browser.run("document.querySelector('#login').requestSubmit()")


def picture(browser):
    return np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB")).astype(int)


def colourful(pixels):
    """Number of pixels that are far from grey: of outlines, for a grey image."""
    return np.count_nonzero(np.ptp(pixels, axis=2) > 60)


def canvas(browser):
    """The part of the screenshot that shows the image, without the mark of the focus."""
    x, y, width, height = map(round, browser.run(BOX))
    return picture(browser)[y + 12 : y + height - 12, x + 12 : x + width - 12]


def test_a_chosen_image_is_shown_with_its_cells(service, page):
    page.choose("#file", EXAMPLE)
    page.wait(DONE)
    _, answer, _ = service.ask("POST", "/v1/segment", EXAMPLE.read_bytes(), token=TOKEN)
    n = json.loads(answer)["n"]
    assert page.text("#count") == str(n)
    assert page.text("#title") == "example.png"
    assert page.text("#facts").startswith("320 \N{MULTIPLICATION SIGN} 256 px")
    bars = page.run("[...document.querySelectorAll('.numbers td:last-child')].map((cell) => Number(cell.textContent))")
    assert sum(bars) == n
    shown = canvas(page)
    assert colourful(shown) > 2000
    page.press("o")
    page.run("new Promise(requestAnimationFrame)")
    time.sleep(0.2)
    assert colourful(canvas(page)) == 0
    assert np.ptp(canvas(page)) > 200, "the image itself is dark or missing"
    assert page.console == []


def test_zoom_pan_and_measure_by_keyboard_and_pointer(page):
    page.choose("#file", EXAMPLE)
    page.wait(DONE)
    fitting = page.text("#level")
    assert page.run("document.activeElement.id") == "canvas"
    page.press("+")
    page.wait(f"document.querySelector('#level').textContent !== {json.dumps(fitting)}")
    before = canvas(page)
    page.press("ArrowRight")
    time.sleep(0.2)
    assert np.abs(canvas(page) - before).mean() > 5
    page.press("0")
    page.wait(f"document.querySelector('#level').textContent === {json.dumps(fitting)}")
    x, y, width, height = page.run(BOX)
    for step in range(1, 20):
        page.point(x + width * step / 20, y + height / 2)
        time.sleep(0.05)
        if said := page.text("#cell"):
            break
    assert said.startswith("Cell ")
    assert " px · score 0." in said


def test_everything_can_be_reached_with_the_tabulator(page):
    def reached(most):
        found = []
        for _ in range(most):
            page.press("Tab")
            found.append(page.run(FOCUS))
        return found

    page.run("document.activeElement.blur()")
    assert set(reached(3)) >= {"diameter", "file"}
    page.choose("#file", EXAMPLE)
    page.wait(DONE)
    assert reached(9) == ["out", "fit", "in", "fade", "SUMMARY", "tiff", "png", "geojson", "json"]
    assert {"diameter", "another", "canvas"} <= set(reached(5))


@pytest.mark.parametrize(("format_", "name"), [("tiff", "cells_labels.tif"), ("geojson", "cells.geojson")])
def test_downloads(page, tmp_path, format_, name):
    file = tmp_path / "cells.png"
    file.write_bytes(EXAMPLE.read_bytes())
    page.choose("#file", file)
    page.wait(DONE)
    page.run(f"document.querySelector('[data-format={format_}]').click()")
    end = time.monotonic() + 60
    while not (tmp_path / name).is_file() and time.monotonic() < end:
        time.sleep(0.1)
    n = int(page.text("#count"))
    if format_ == "tiff":
        assert tifffile.imread(tmp_path / name).max() == n
    else:
        assert len(json.loads((tmp_path / name).read_text())["features"]) == n


def test_a_dropped_tiff_of_sixteen_bits_is_shown_too(page, tmp_path):
    grey = np.asarray(Image.open(EXAMPLE).convert("L")).astype(np.uint16) * 8
    file = io.BytesIO()
    tifffile.imwrite(file, grey, resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    page.run(f"({DROP})('{base64.b64encode(file.getvalue()).decode()}', 'deep.tif')")
    page.wait(DONE)
    assert "µm²" in page.text("#quartiles")
    assert np.ptp(canvas(page)) > 200
    assert colourful(canvas(page)) > 2000


def test_problems_are_said_and_leave_the_page_usable(page, tmp_path):
    (tmp_path / "junk.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 100)
    page.choose("#file", tmp_path / "junk.png")
    page.wait(PROBLEM)
    assert page.text("#problem span").startswith("The image ")
    assert page.run("document.querySelector('#drop').checkVisibility()")
    busy = {"error": {"code": "busy", "message": "too many requests wait"}}
    page.run(f"{KEEP}async () => Response.json({json.dumps(busy)}, {{status: 503, headers: {{'Retry-After': '7'}}}})")
    page.choose("#file", EXAMPLE)
    page.wait(f"{PROBLEM} && document.querySelector('#problem').innerText.includes('7 s')")
    assert page.text("#problem span") == Like(r"^Too many requests.* 7 s\.$")
    page.run("globalThis.fetch = kept; document.querySelector('#retry').click()")
    page.wait(DONE)
    assert page.run("document.querySelector('#problem').hidden")


def test_cancel_stops_waiting(page):
    page.run(f"{KEEP}(_, {{signal}}) => new Promise((_, no) => signal.addEventListener('abort', no))")
    page.choose("#file", EXAMPLE)
    page.wait("'busy' in document.querySelector('main').dataset")
    page.press("Escape")
    page.wait(PROBLEM)
    assert page.text("#problem span") == "Stopped."


def test_a_wrong_token_is_refused(service, tmp_path):
    with Browser(tmp_path) as page:
        page.open(f"http://127.0.0.1:{service.port}/")
        sign_in(page, "wrong")
        page.wait(PROBLEM)
        assert "token" in page.text("#problem span")
        assert page.run("!document.querySelector('#login').hidden")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900), (1920, 1080)])
def test_nothing_is_cut_off(service, tmp_path, width, height):
    with Browser(tmp_path, width, height) as page:
        page.open(f"http://127.0.0.1:{service.port}/")
        sign_in(page, TOKEN)
        page.wait("!document.querySelector('#options').hidden")
        assert page.run("document.documentElement.scrollWidth - innerWidth") == 0
        page.choose("#file", EXAMPLE)
        page.wait(DONE)
        assert page.run("document.documentElement.scrollWidth - innerWidth") == 0
        assert len(np.unique(picture(page).reshape(-1, 3), axis=0)) > 200
