"""The results page: complete without a network or a script, safe with any file name, small with many images."""

import itertools
import os
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest

from cellbundle.errors import ArrayError
from cellbundle.report.page import MISSING

from .conftest import RUN, failure, result, write

HOSTILE = [
    "plate 1/ä image.TIF",
    "#1 50%20.png",
    "what? & why=\"x\" 'y'.png",
    "<script>document.title='pwned'</script>.png",
    "javascript:alert(1).png",
    "\"><img src=x onerror='document.title=1'>.png",
    "{{ 7 * 7 }}{% raw %}.png",
    "細胞 \N{RIGHT-TO-LEFT OVERRIDE}gnp.tif",
]


def target(url):
    """Path that a browser opens for a relative URL, as the bytes that the file system knows."""
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", ""), url
    assert not url.startswith("/")
    return os.fsdecode(unquote_to_bytes(parts.path))


def cards(page):
    return page.all("li", class_="card")


def test_every_image_has_a_card_with_its_pictures_links_and_count(tmp_path):
    results = [result(name, 10 + i) for i, name in enumerate(HOSTILE)]
    page = write(tmp_path, results)
    for card, expected in itertools.zip_longest(cards(page), results):
        assert page.one("h3", card)["text"] == expected.name
        assert page.one("p", card, class_="count")["text"] == f"{expected.n_instances} cells"
        pictures = page.all("img", card)
        assert [target(picture["src"]) for picture in pictures] == [expected.picture, expected.overlay]
        assert [picture.get("class") for picture in pictures] == [None, "over"]
        assert all(picture["loading"] == "lazy" for picture in pictures)
        links = page.all("a", page.one("p", card, class_="files"))
        assert {link["text"]: target(link["href"]) for link in links} == expected.files
        assert target(page.one("a", card, class_="pic")["href"]) == expected.overlay


def test_links_lead_to_files_that_exist(tmp_path):
    results = [result(name.replace("/script", "script")) for name in HOSTILE]
    for path in (path for r in results for path in (r.picture, r.overlay, *r.files.values())):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    page = write(tmp_path, results)
    urls = [e["href"] for e in page.all("a") if not e["href"].startswith("#")] + [e["src"] for e in page.all("img")]
    assert len(urls) == 5 * len(results)
    assert [url for url in urls if not (tmp_path / target(url)).is_file()] == []


def test_a_hostile_name_is_text_only(tmp_path):
    page = write(tmp_path, [result(name) for name in HOSTILE] + [failure(name, error=name) for name in HOSTILE])
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not [name for element in page.elements for name in element if name.startswith("on")]
    assert {element["tag"] for element in page.elements if "src" in element} == {"img"}


@pytest.mark.skipif(os.name != "posix", reason="file names are Unicode there")
def test_a_name_that_is_not_utf8_keeps_its_bytes_in_the_link(tmp_path):
    name = os.fsdecode(b"\xe4.tif")
    page = write(tmp_path, [result(name, files={"labels": name})])
    assert page.one("p", class_="files")["text"].strip() == "labels"
    assert page.all("a", page.one("p", class_="files"))[0]["href"] == "%E4.tif"


def test_a_path_cannot_become_another_host_or_scheme(tmp_path):
    page = write(tmp_path, [result("a.tif", files={"1": "//evil.example/x", "2": "https://evil.example/x"})])
    targets = [target(link["href"]) for link in page.all("a", page.one("p", class_="files"))]
    assert targets == ["evil.example/x", "https:/evil.example/x"]


def test_nothing_is_fetched_from_elsewhere(tmp_path):
    page = write(tmp_path, [result("a.tif")])
    assert "http://" not in page.source
    assert "https://" not in page.source
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert page.one("link")["href"] == "data:,"


def test_failures_come_first_with_their_reasons(tmp_path):
    page = write(tmp_path, [result("a.tif"), failure("plate/b <1>.tif", "axes & all"), failure("c.tif", None)])
    box = page.one("section", id="failures")
    assert page.elements.index(box) < page.elements.index(cards(page)[0])
    assert [item["text"].strip() for item in page.all("li", box)] == [
        "plate/b <1>.tifaxes & all",
        "c.tifno reason was recorded",
    ]
    assert len(cards(page)) == 1
    rows = page.all("tr", page.one("tbody"))
    assert [page.all("td", row)[0]["text"] for row in rows] == ["12", "failed", "failed"]


def test_summary(tmp_path):
    page = write(tmp_path, [result("a.tif", 1200), result("b.tif", 0), failure("c.tif")])
    stats = [
        [part["text"] for part in page.all(within=div) if part["tag"] in {"dt", "dd"}]
        for div in page.all("div", page.one("dl", class_="stats"))
    ]
    assert stats == [
        ["Images", "3", "3 other files ignored"],
        ["Cells", "1,200", "600 per image, 1 without any"],
        ["Failed", "1", "see why"],
        ["Time", "3 min 07 s", "1 min 02 s per image"],
    ]


def test_table_has_a_column_for_every_statistic_with_aligned_decimals(tmp_path):
    page = write(tmp_path, [
        result("a.tif", statistics={"area_median": 83.04, "x": 0.01}, seconds=None),
        result("b.tif", 1, statistics={"area_median": 7.5, "y": float("nan")}, seconds=12.0),
        result("c.tif", 2, statistics={"x": 12345.678, "y": float("inf")}, seconds=1.0),
    ])  # fmt: skip
    head, *rows = [[cell["text"] for cell in page.elements if cell["tag"] in {"th", "td"} and row in cell["inside"]]
                   for row in page.all("tr", page.one("table", id="table"))]  # fmt: skip
    assert head == ["name", "cells", "area median (µm²)", "x", "y", "seconds"]
    assert rows == [
        ["a.tif", "12", "83.0", "0", MISSING, MISSING],
        ["b.tif", "1", "7.5", MISSING, MISSING, "12.0"],
        ["c.tif", "2", MISSING, "12,346", MISSING, "1.0"],
    ]
    assert [option["text"] for option in page.all("option")] == ["as given", *head]


def test_size_histogram_adds_up_and_names_the_quartiles(tmp_path):
    one, two = np.zeros((2, 24), int)
    one[0], two[0], two[1] = 2, 2, 4
    page = write(tmp_path, [result("a.tif", 2, sizes=one), result("b.tif", 6, sizes=two), failure("c.tif")])
    bars = page.all("rect")
    assert [bar["text"] for bar in bars[:2]] == ["0 to 20 µm²: 4 cells", "20 to 40 µm²: 4 cells"]
    assert bars[-1]["text"] == "460 and more µm²: 0 cells"
    assert [float(bar["height"]) for bar in bars[:3]] == [100, 100, 0]
    text = page.one("figcaption")["text"]
    assert "smaller than about 20 µm²" in text
    assert "between 10 and 30" in text
    ticks = page.all("span", page.one("div", class_="axis"))
    assert [tick["text"] for tick in ticks] == ["0", "120", "240", "360", "480+"]


def test_small_histogram_shows_even_one_cell(tmp_path):
    sizes = np.zeros(24, int)
    sizes[[0, 1]] = 1, 1000
    page = write(tmp_path, [result("a.tif", sizes=sizes)])
    assert page.one("path", cards(page)[0])["d"].startswith("M0 20V19h1V0h1V20h1")


def test_only_an_overlay_does_not_fade_and_no_picture_is_no_link(tmp_path):
    page = write(tmp_path, [result("a.tif", picture=None), result("b.tif", picture=None, overlay=None)])
    first, second = cards(page)
    assert "class" not in page.one("img", first)
    assert page.all("img", second) == page.all(within=second, class_="pic") == []
    assert page.all("input", type_="range") == []


@pytest.mark.parametrize("ignored", [0, 1, 2])
def test_empty_run(tmp_path, ignored):
    page = write(tmp_path, [], ignored=ignored)
    assert page.one("p", class_="nothing")["text"].startswith("No images were found")
    assert page.all("rect") == page.all("table") == page.all(id="failures") == []
    assert RUN.command in page.one("pre")["text"]


def test_all_failed(tmp_path):
    page = write(tmp_path, [failure(f"{i}.tif") for i in range(3)])
    assert page.one("h2", id="failures-head")["text"] == "3 images failed"
    assert cards(page) == page.all("rect") == []
    assert len(page.all("tr", page.one("tbody"))) == 3


def test_how_it_was_made(tmp_path):
    page = write(tmp_path, [result("a.tif")], command="a < b && c", notes=["x <y>", "z"])
    assert page.one("pre")["text"] == "a < b && c"
    details = page.one("dl", id="details")["text"]
    for text in ("cell_unet 0.1.0", "cpu", "2026-05-14 16:02", "x <y>; z", "cellbundle 0.1.0, torch 2.11.0"):
        assert text in details
    assert len([button for button in page.all("button") if "data-copy" in button]) == 2


def test_ids_are_unique_and_labels_point_to_them(tmp_path):
    page = write(tmp_path, [result("a.tif"), failure("b.tif"), result("c.tif")])
    ids = [element["id"] for element in page.elements if "id" in element]
    assert len(ids) == len(set(ids))
    used = [e[key] for e in page.elements for key in ("aria-labelledby", "data-copy") if key in e]
    used += [e["href"][1:] for e in page.all("a") if e["href"].startswith("#")]
    assert set(used) <= set(ids)


def test_a_thousand_images_make_a_small_page(tmp_path):
    rng = np.random.default_rng(0)
    sizes = rng.poisson(20, (1000, 24))
    results = [
        result(
            f"plate {i // 100}/B{i % 24:02d} field {i % 9}/{i:04d}_nuclei_DAPI_40x_größe.tif",
            int(counts.sum()),
            sizes=counts,
            statistics={f"area_{k}": float(rng.uniform(50, 500)) for k in ("mean", "median", "p10", "p90")},
        )
        for i, counts in enumerate(sizes)
    ]
    page = write(tmp_path, results)
    assert len(cards(page)) == 1000
    assert (tmp_path / "index.html").stat().st_size < 2_000_000


@pytest.mark.parametrize("edges", [[], [0.0], [0.0, 0.0], [1.0, 0.0], [0.0, float("nan")]])
def test_edges_must_ascend(tmp_path, edges):
    with pytest.raises(ArrayError, match=r"size_edges.*ascending"):
        write(tmp_path, [], size_edges=edges)


def test_histogram_must_fit_the_edges_and_leaves_no_file(tmp_path):
    with pytest.raises(ArrayError, match=r"a\.tif.* 24 counts.* 2$"):
        write(tmp_path, [result("a.tif", sizes=[1, 2])])
    assert list(tmp_path.iterdir()) == []
