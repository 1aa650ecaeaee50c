"""A client of an application without processes."""

import pytest
from fastapi.testclient import TestClient
from unit_tests.service.fakes import InlinePool, png, segmenter

from cellbundle.service.http.app import create_app
from cellbundle.service.paths import Root
from cellbundle.service.settings import ServiceSettings


@pytest.fixture
def make(tmp_path):
    """Makes a client; ``root`` is served to /seg_mask."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.png").write_bytes(png())
    clients = []

    def make_client(pool=None, **options):
        options.setdefault("bundles", ("fake",))
        options.setdefault("roots", (Root.of(tmp_path / "root"),))
        app = create_app(ServiceSettings(**options), pool or InlinePool(segmenter(names=options["bundles"])))
        clients.append(TestClient(app, "http://127.0.0.1", raise_server_exceptions=False))
        return clients[-1].__enter__()

    yield make_client
    for client in clients:
        client.__exit__(None, None, None)
