"""The page of a prepared data set: its figures, its pictures, what is wrong, and nothing that changes between runs."""

import base64
import re
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest

from cellbundle.datasets.convert import SIZE_EDGES, Output, Record
from cellbundle.datasets.facts import Facts, Variant
from cellbundle.datasets.model import Item, Problem
from cellbundle.datasets.prepared import Prepared
from cellbundle.datasets.report import write_report
from cellbundle.io import write_image, write_labels

from ..report.conftest import Page
from ..words import Like

X = "\N{MULTIPLICATION SIGN}"
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)> {{ 7*7 }} </style>&amp;"""
FACTS = Facts(
    name="cells",
    title="Cells of a kind",
    about="Squares on grey.",
    page="https://example.org/cells",
    licence="CC BY 4.0",
    redistribution="allowed with the citation",
    citation="Someone et al., A Journal, 2020",
    login="none",
    layout="images and labels",
    variants={"first": Variant("as published", ("*.tif",), counts={"training": 6, "testing": 1})},
    notes=("Small cells are missing.",),
)


def squares(n, side, shape):
    """(H, W) map of n squares in rows, a pixel apart."""
    labels = np.zeros(shape, np.int32)
    a_row = (shape[1] - 1) // (side + 1)
    for i in range(n):
        y, x = (1 + (side + 1) * place for place in divmod(i, a_row))
        labels[y : y + side, x : x + side] = i + 1
    return labels


def prepared(folder, rows, facts=FACTS, **lists):
    """A data set of images of squares: rows of (name, section, fold, group, subsets, squares, side, shape)."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    items, records = [], {}
    for name, section, fold, group, subsets, n, side, shape in rows:
        labels = squares(n, side, shape)
        paths = [f"{kind}/{len(items)}.tif" for kind in ("images", "labels")]
        write_image(folder / paths[0], (100 * (labels > 0) + 50).astype(np.uint8))
        write_labels(folder / paths[1], labels)
        items.append(Item(name, folder / paths[0], (), group, section, fold, subsets))
        sizes = np.histogram(np.full(n, 2 * side / np.sqrt(np.pi)), SIZE_EDGES)[0].tolist()
        image, label = (Output.of(folder, path) for path in paths)
        records[name] = Record(name, "key", image, label, shape, n, sizes, None, [])
    lists = {"problems": [], "remarks": [], "leaks": []} | lists
    return Prepared(facts=facts, variant="first", folder=folder, items=items, records=records, **lists)


ROWS = [
    ("a", "training", 0, "g1", ("x",), 4, 8, (40, 60)),
    ("b", "training", 0, "g1", ("y",), 0, 8, (40, 60)),
    ("c", "training", 1, "g2", ("x",), 7, 8, (40, 60)),
    ("d", "testing", None, "g3", ("y",), 1100, 2, (120, 100)),
]


def page(folder, *args, **kwargs):
    data = prepared(folder, *args, **kwargs)
    write_report(folder / "report.html", data)
    return Page(folder / "report.html")


def table(page, name):
    within = page.one("table", id=name)
    return [
        [cell["text"] for cell in page.all(within=row) if cell["tag"] in ("th", "td")]
        for row in page.all("tr", within=within)
    ]


def stats(page):
    figures = page.all("div", within=page.one("dl", class_="stats"))
    return {page.one("dt", within=e)["text"]: [d["text"] for d in page.all("dd", within=e)] for e in figures}


def bars(page, number):
    rows = page.all("tr", within=page.all("table", class_="numbers")[number])[1:]
    return [tuple(cell["text"] for cell in page.all("td", within=row)) for row in rows]


def test_totals(tmp_path):
    assert stats(page(tmp_path, ROWS)) == {
        "Images": ["4", f"40 {X} 60 to 120 {X} 100 px (height {X} width)"],
        "Instances": ["1,111", "median 5.5 an image, 1 without any"],
        "Groups": ["3", "what a split keeps together"],
        "Leaks": ["0", "No group and no image stands in two places"],
        "Problems": ["0", "everything was converted"],
        "Remarks": ["0", "nothing is odd"],
    }


def test_sections_and_folds(tmp_path):
    assert table(page(tmp_path, ROWS), "places") == [
        ["section", "images", "groups", "instances", "median an image"],
        ["training, fold 0", "2", "1", "4", "2"],
        ["training, fold 1", "1", "1", "7", "7"],
        ["training", "3", "2", "11", "4"],
        ["testing", "1", "1", "1,100", "1,100"],
        ["all", "4", "3", "1,111", "5.5"],
    ]


def test_lists(tmp_path):
    result = page(tmp_path, ROWS)
    assert table(result, "lists")[1:] == [
        ["cells.json", "3", "1", "1,111"],
        ["cells_x.json", "2", "0", "11"],
        ["cells_y.json", "1", "1", "1,100"],
    ]
    assert [a["href"] for a in result.all("a", within=result.one(id="lists"))][2] == "cells_y.json"
    assert not page(tmp_path, [(*row[:4], (), *row[5:]) for row in ROWS]).all(id="lists"), "there is one list only"


def test_published_counts_beside_those_found(tmp_path):
    assert table(page(tmp_path, ROWS), "published")[1:] == [
        ["training", "6", "3", "\N{MINUS SIGN}3"],
        ["testing", "1", "1", "0"],
    ]
    one = replace(FACTS, variants={"first": Variant("", (), counts={"training": 2})})
    assert table(page(tmp_path, ROWS, one), "published")[1:] == [["all", "2", "4", "+2"]]
    none = replace(FACTS, variants={"first": Variant("", ())})
    assert not page(tmp_path, ROWS, none).all(id="published")


def test_source(tmp_path):
    result = page(tmp_path, ROWS)
    assert result.one("h1")["text"] == result.all("title")[0]["text"] == "Cells of a kind"
    terms, texts = ([e["text"] for e in result.all(t, within=result.one("dl", id="details"))] for t in ("dt", "dd"))
    assert terms == ["Licence", "Redistribution", "Citation", "Page", "Login", "Variant", "Notes"]
    own = [FACTS.licence, FACTS.redistribution, FACTS.citation, FACTS.page, FACTS.login]
    assert texts == [*own, "first: as published", "Small cells are missing."]
    assert [a["href"] for a in result.all("a") if ":" in a["href"]] == ["https://example.org/cells"]


def test_histogram_of_diameters(tmp_path):
    result = page(tmp_path, ROWS)
    used = [bar for bar in bars(result, 0) if bar[1] != "0"]
    assert used == [("2 to 2.38", "1,100"), ("8 to 9.51", "11")], "2 and 8 pixels are sides of 2.26 and 9.03 pixels"
    axis = [span["text"] for span in result.all("span", within=result.all("div", class_="axis")[0])]
    assert axis == ["2", "4", "8", "16"], "whole octaves"
    heights = [float(bar["height"]) for bar in result.all("rect", within=result.all("svg", role="img")[0])]
    assert [heights[0], heights[8], sum(heights)] == [73.33, 0.73, 74.06], "of 1,500, the highest level"


def test_histogram_of_instances_an_image(tmp_path):
    result = page(tmp_path, ROWS)
    assert [bar for bar in bars(result, 1) if bar[1] != "0"] == [("0 to 99", "3"), ("1,100 to 1,199", "1")]
    assert len(bars(result, 1)) == 12
    few = page(tmp_path, ROWS[:2])
    assert bars(few, 1) == [("0", "1"), ("1", "0"), ("2", "0"), ("3", "0"), ("4", "1")]


def test_what_is_not_in_the_histogram_is_counted(tmp_path):
    data = prepared(tmp_path, ROWS)
    data.records["c"].sizes[:] = [0] * 40
    write_report(tmp_path / "report.html", data)
    assert "7 of more than 1,024 px are not in the chart." in Page(tmp_path / "report.html").one("body")["text"]


def test_images_without_any_instance_have_no_diameters(tmp_path):
    result = page(tmp_path, ROWS[1:2])
    assert [result.one("h2", within=figure)["text"] for figure in result.all("figure")] == ["Instances an image"]


def test_samples_come_from_each_section_and_subset(tmp_path):
    rows = [(f"{s}{i:02}", "training", 0, "", (s,), 1, 2, (9, 9)) for s in "xy" for i in range(30)]
    rows += [(f"z{i}", "testing", None, "", ("y",), 1, 2, (9, 9)) for i in range(2)]
    names = [result["text"] for result in page(tmp_path / "a", rows).all("h3")]
    assert names == ["x05", "x15", "x25", "y05", "y15", "y25", "z0", "z1"]
    assert [result["text"] for result in page(tmp_path / "b", rows[::-1]).all("h3")] == names


def test_pictures(tmp_path):
    rows = [("wide", "training", 0, "", (), 3, 40, (100, 900)), ("small", "testing", None, "", (), 1, 9, (30, 20))]
    result = page(tmp_path, rows)
    assert [p["text"] for p in result.all("p", class_="meta")[1:]] == [
        f"training, fold 0the middle 100 {X} 720 of 100 {X} 900 px",
        f"testing30 {X} 20 px",
    ]
    pictures = [image["src"] for image in result.all("img")]
    assert all(source.startswith("data:image/jpeg;base64,") for source in pictures)
    wide, small = (imagecodecs.jpeg_decode(base64.b64decode(source.partition(",")[2])) for source in pictures)
    assert wide.shape == (50, 360, 3)
    assert small.shape == (30, 20, 3)
    colour = np.ptp(small.astype(int), axis=-1) > 60  # JPEG blurs
    assert colour[[1, 9, 5, 5], [5, 5, 1, 9]].all(), "outline"
    assert not colour[15:].any(), "ground"
    assert not colour[4:7, 4:7].any(), "inside"


def test_page_with_noisy_pictures_stays_small(tmp_path):
    data = prepared(tmp_path, [(f"{i}", "training", 0, "", (), 900, 20, (720, 720)) for i in range(8)])
    noise = np.random.default_rng(0).integers(0, 256, (3, 720, 720)).astype(np.uint8)
    for record in data.records.values():
        write_image(tmp_path / record.image.path, noise)
    write_report(tmp_path / "report.html", data)
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


@pytest.mark.parametrize("damaged", ["image", "label"])
def test_image_that_cannot_be_drawn(tmp_path, damaged):
    data = prepared(tmp_path, ROWS)
    path = getattr(data.records["a"], damaged).path
    (tmp_path / path).write_bytes(b"II*\0 no image")
    (tmp_path / data.records["b"].image.path).unlink()
    write_report(tmp_path / "report.html", data)
    result = Page(tmp_path / "report.html")
    assert len(result.all("h3")) == 4
    assert [image["alt"] for image in result.all("img")] == ["c with outlines", "d with outlines"]
    reasons = [p["text"] for p in result.all("p", class_="gone")]
    assert reasons[0] == Like(f"{path}.*cannot be decoded")
    assert reasons[1] == Like(r"images/1\.tif.*No such file")


def test_problems_remarks_and_leaks(tmp_path):
    problems = [Problem("é 1", f"{tmp_path}/images/1.tif: is empty")]
    result = page(tmp_path, ROWS, problems=problems, remarks=["odd"], leaks=["group 'g' stands in a and b"])
    assert [stats(result)[key][0] for key in ("Leaks", "Problems", "Remarks")] == ["1", "1", "1"]
    entries = [result.one("li", within=result.one(id=name))["text"] for name in ("leaks", "problems", "remarks")]
    assert entries == ["group 'g' stands in a and b", "é 1images/1.tif: is empty", "odd"]
    assert "No group and no image" not in result.source
    order = [section.get("id") for section in result.all("section")]
    assert order.index("leaks") < order.index("problems") < order.index(None, 1), "above the tables"


def test_long_lists_are_shortened(tmp_path):
    result = page(tmp_path, ROWS, remarks=[f"remark {i}" for i in range(1234)])
    section = result.one("section", id="remarks")
    assert [li["text"] for li in result.all("li", within=section)] == [f"remark {i}" for i in range(50)]
    assert result.one("h2", within=section)["text"] == "1,234 remarks"
    assert result.one("summary", within=section)["text"] == "The first 50 of 1,234"


def test_everything_is_escaped(tmp_path):
    rows = [(HOSTILE, "training", 0, HOSTILE, (HOSTILE,), 1, 2, (9, 9)), *ROWS[:1]]
    variants = {"first": Variant(HOSTILE, (), counts={HOSTILE: 1, "testing": 1})}
    texts = dict.fromkeys(("title", "about", "page", "licence", "redistribution", "citation", "login"), HOSTILE)
    facts = replace(FACTS, variants=variants, notes=(HOSTILE,), **texts)
    wrong = {"problems": [Problem(HOSTILE, HOSTILE)], "remarks": [HOSTILE], "leaks": [HOSTILE]}
    result = page(tmp_path / "a", rows, facts, **wrong)
    plain = page(tmp_path / "b", ROWS, problems=[Problem("n", "r")], remarks=["r"], leaks=["l"])
    assert {e["tag"] for e in result.elements} == {e["tag"] for e in plain.elements}
    assert not result.all("script")
    assert not any(key.startswith("on") for element in result.elements for key in element)
    assert result.one("body")["text"].count(HOSTILE) == 18
    assert [h["text"] for h in result.all("h3")] == [HOSTILE, "a"], "shown as it is"
    assert not [a for a in result.all("a") if a["href"].startswith(("<", "javascript"))]


def test_names_of_other_alphabets(tmp_path):
    rows = [("Zelle_ä中", "training", 0, "", (), 1, 2, (9, 9)), ("bad_\udcff", "testing", None, "", (), 1, 2, (9, 9))]
    assert [h["text"] for h in page(tmp_path, rows).all("h3")] == ["Zelle_ä中", "bad_?"]


def test_same_data_give_the_same_bytes_in_any_folder(tmp_path):
    sources = []
    for folder in (tmp_path / "a", tmp_path / "much" / "deeper"):
        data = prepared(folder, ROWS, remarks=[f"{folder}/images/0.tif: odd"])
        (folder / data.records["d"].label.path).unlink()
        write_report(folder / "report.html", data)
        sources.append((folder / "report.html").read_bytes())
    assert sources[0] == sources[1]
    assert str(tmp_path).encode() not in sources[0]


def test_needs_no_network_and_no_other_file(tmp_path):
    result = page(tmp_path, ROWS)
    policy = next(e["content"] for e in result.all("meta") if "http-equiv" in e)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert [link["href"] for link in result.all("link")] == ["data:,"]
    assert not re.findall(r"@import|url\(", result.one("style")["text"])


def test_headings_and_tables_have_names(tmp_path):
    result = page(tmp_path, ROWS, problems=[Problem("n", "r")], remarks=["r"], leaks=["l"])
    identifiers = [e["id"] for e in result.elements if "id" in e]
    assert len(set(identifiers)) == len(identifiers)
    assert set() < {e["aria-labelledby"] for e in result.elements if "aria-labelledby" in e} <= set(identifiers)
    assert len(result.all("caption")) == len(result.all("table")) == 5
    assert all("scope" in head for head in result.all("th"))
    targets = [a["href"][1:] for a in result.all("a") if a["href"].startswith("#")]
    assert targets == ["leaks", "problems", "remarks"]
    assert set(targets) <= set(identifiers)
