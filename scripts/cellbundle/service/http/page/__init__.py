"""The page of the service: no build step, nothing from elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parent
REPORT_STYLE = FOLDER.parents[2] / "report" / "page.css"  # colours and controls of all pages

_FILES = {
    "/": (FOLDER / "index.html", "text/html; charset=utf-8"),
    "/static/app.js": (FOLDER / "app.js", "text/javascript; charset=utf-8"),
    "/static/viewer.js": (FOLDER / "viewer.js", "text/javascript; charset=utf-8"),
    "/static/sizes.js": (FOLDER / "sizes.js", "text/javascript; charset=utf-8"),
    "/static/page.css": (REPORT_STYLE, "text/css; charset=utf-8"),
    "/static/style.css": (FOLDER / "style.css", "text/css; charset=utf-8"),
    "/static/icon.svg": (FOLDER / "icon.svg", "image/svg+xml"),
}

FILES: Mapping[str, tuple[str, bytes]] = MappingProxyType(
    {url: (media_type, path.read_bytes()) for url, (path, media_type) in _FILES.items()}
)
"""Media type and content by path of the URL; read once, so that no request can name a file."""
