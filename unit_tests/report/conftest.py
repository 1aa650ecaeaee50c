"""A run to show, and a parser that gives the elements of its page."""

from dataclasses import replace
from html.parser import HTMLParser

from cellbundle.report import ImageResult, Run, write_page

EDGES = [float(edge) for edge in range(0, 500, 20)]
VOID = {"meta", "link", "img", "input"}
RUN = Run(
    title="plate 1",
    command="cellbundle predict 'my images' --output out",
    bundle="cell_unet 0.1.0",
    device="cpu",
    versions={"cellbundle": "0.1.0", "torch": "2.11.0"},
    started="2026-05-14 16:02",
    seconds=187.2,
    size_edges=EDGES,
    size_unit="µm²",
    ignored=3,
    notes=["tile size 1024", "scale 1.5"],
)


class Page(HTMLParser):
    """The elements of a page with their attributes and text; every tag must be closed where it should be."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.open = [], []
        self.source = path.read_bytes().decode("utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        element = {"tag": tag, "text": "", "inside": tuple(self.open)} | {k: v or "" for k, v in attributes}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1]["tag"] == tag, f"</{tag}> closes <{self.open[-1]['tag']}>"
        self.open.pop()

    def handle_data(self, text):
        for element in self.open:
            element["text"] += text

    def all(self, tag=None, within=None, **attributes):
        return [
            element
            for element in self.elements
            if (tag in {None, element["tag"]})
            and (within is None or any(parent is within for parent in element["inside"]))
            and all(element.get(name.rstrip("_")) == value for name, value in attributes.items())
        ]

    def one(self, *args, **kwargs):
        (element,) = self.all(*args, **kwargs)
        return element


def result(name, n=12, **changes):
    stem = name.rpartition(".")[0]
    sizes = [0] * (len(EDGES) - 1)
    sizes[3] = n
    files = {"labels": f"{stem}_labels.tif", "geojson": f"{stem}.geojson"}
    values = {"area_median": 83.0, "intensity_mean": 0.25}
    done = ImageResult(name, n, files, f"{stem}_picture.png", f"{stem}_outlines.png", values, sizes, seconds=1.5)
    return replace(done, **changes)


def failure(name, error="the file ends too early"):
    return ImageResult(name, None, {}, None, None, {}, [], error)


def write(folder, results, **changes):
    write_page(folder / "index.html", replace(RUN, **changes), results)
    return Page(folder / "index.html")
