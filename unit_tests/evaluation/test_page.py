"""The page of an evaluation: complete, closed, escaped, without a network."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cellbundle.evaluation import Evaluation, Failure, summarise
from cellbundle.evaluation.page import MAX_LINES, render_evaluation
from cellbundle.metrics import image_scores

HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)> {{ 7*7 }} </style>&amp;|.png"""
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Elements, text and tables of a page; checks that every element is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.text, self.tables, self.scripts = [], [], "", [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts += text
            return
        self.text += text
        if any(tag in ("td", "th") for tag in self.open):
            self.tables[-1][-1][-1] += text

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def evaluation(rows, failures=()):
    """An evaluation of images (name, group, predicted squares of two)."""
    true = np.zeros((4, 8), np.int32)
    true[:2, :2], true[:2, 4:6] = 1, 2
    table = pd.DataFrame(
        [{"image": name, "group": group} | image_scores(true, true * (true <= n)) for name, group, n in rows],
        columns=None if rows else ["image", "group"],
    )
    return Evaluation(table, summarise(table), list(failures))


def page(rows, failures=(), title="a title", notes=()):
    return Page(render_evaluation(evaluation(rows, failures), title=title, notes=notes))


ROWS = [("good.png", "g", 2), ("bad.png", "h", 0), ("half.png", "g", 1)]


def test_worst_images_come_first():
    images = page(ROWS).tables[-1]
    assert images[0][:6] == ["image", "group", "true", "predicted", "missed", "extra"]
    assert [row[:7] for row in images[1:]] == [
        ["bad.png", "h", "2", "0", "2", "0", "0.000"],
        ["half.png", "g", "2", "1", "1", "0", "0.500"],
        ["good.png", "g", "2", "2", "0", "0", "1.000"],
    ]


def test_group_tables():
    lines, means, pooled, _ = page(ROWS).tables
    assert [row[:3] for row in means] == [
        ["group", "images", "AP50"],
        ["g", "2", "0.750"],
        ["h", "1", "0.000"],
        ["all", "3", "0.500"],
    ]
    assert pooled[0][:7] == ["group", "images", "true", "predicted", "matched", "missed", "extra"]
    assert pooled[-1][:8] == ["all", "3", "6", "3", "3", "3", "0", "0.500"]
    assert lines[0] == ["group", "0.5", "0.55", "0.6", "0.65", "0.7", "0.75", "0.8", "0.85", "0.9", "0.95"]
    assert lines[1] == ["all", *["0.500"] * 10]


def test_chart_shows_the_means():
    paths = [attributes["d"] for attributes in page(ROWS).of("path")]
    points = [path for path in paths if path.startswith("M0.0 ") and path.count("L") == 9]
    heights = [path.split("L")[0].split()[1] for path in points]
    assert heights == ["100.0", "25.0", "50.0"], "h, g and, on top, all"
    assert points[0].endswith("100.0 100.0")


def test_a_single_group_is_not_drawn_twice():
    result = page([("a.png", "g", 2)])
    assert len(result.tables[0]) == 2
    assert not [attributes for attributes in result.of("ul") if attributes.get("class") == "legend"]


def test_many_groups():
    rows = [(f"{i}.png", f"g{i}", 1) for i in range(MAX_LINES + 3)] + [("x.png", "g9", 1)]
    result = page(rows)
    assert len(result.tables[0]) == 1 + 1 + MAX_LINES
    assert result.tables[0][2][0] == "g9", "the largest first"
    assert "3 smaller groups are only in the table." in result.text
    assert len(result.tables[1]) == 1 + len(rows) - 1 + 1


@pytest.mark.parametrize("group", ["all (group)", "", "<b>"])
def test_odd_groups(group):
    assert page([("a.png", group, 2), ("b.png", "g", 1)]).tables[1][-1][0] == "all"


def test_failures():
    result = page(ROWS, [Failure("x/lost.png", "g", "has no prediction")])
    assert {"id": "failures", "class": "failures", "aria-labelledby": "failures-head"} in result.of("section")
    assert "1 image failed" in result.text
    assert "x/lost.png" in result.text
    assert "has no prediction" in result.text
    assert "none failed" in page(ROWS).text


def test_nothing_scored():
    result = page([], [Failure("a.png", "g", "m")])
    assert "No image could be scored." in result.text
    assert result.tables == []


def test_everything_is_escaped():
    rows = [(HOSTILE, HOSTILE + "1", 2), ("b", HOSTILE + "2", 1)]
    result = page(rows, [Failure(HOSTILE, "g", HOSTILE)], title=HOSTILE, notes=[HOSTILE])
    plain = page(ROWS, [Failure("a", "g", "m")], notes=["n"])
    assert {tag for tag, _ in result.elements} == {tag for tag, _ in plain.elements}
    assert len(result.of("script")) == 1
    assert result.scripts == plain.scripts
    assert not any(name.startswith("on") for _, attributes in result.elements for name in attributes)
    assert result.tables[-1][2][0] == HOSTILE, "and is shown as it is"
    assert result.text.count(HOSTILE) > 8


def test_no_network():
    html = render_evaluation(evaluation(ROWS), title="t")
    assert not re.findall(r"https?:|//[a-z]|@import|url\(", re.sub(r"// [^\n]*", "", html))
    result = Page(html)
    policy = next(a["content"] for a in result.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert [a["href"] for a in result.of("link")] == ["data:,"]
    assert not result.of("img")


def test_accessible():
    result = page(ROWS, [Failure("a", "g", "m")])
    assert result.of("html") == [{"lang": "en"}]
    assert all("scope" in attributes for attributes in result.of("th"))
    assert len(result.of("caption")) == len(result.tables) == 4
    regions = [a for a in result.of("div") if a.get("class") == "scroll"]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in regions)
    identifiers = [a["id"] for _, a in result.elements if "id" in a]
    assert len(set(identifiers)) == len(identifiers)
    assert any(a.get("name") == "viewport" for a in result.of("meta"))


def test_each_score_is_explained():
    result = page(ROWS)
    start = result.text.index("What the scores mean")
    for heading in {text for table in result.tables[1:] for text in table[0]} - {"group", "images", "image"}:
        assert heading in result.text[start:]


def test_equal_results_give_equal_pages():
    assert render_evaluation(evaluation(ROWS), title="t") == render_evaluation(evaluation(ROWS), title="t")
