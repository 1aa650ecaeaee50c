"""A server with sockets, but without processes: in a thread."""

import threading
import time
from contextlib import contextmanager

from unit_tests.service.fakes import InlinePool, segmenter

from cellbundle.cli.serve import listen
from cellbundle.service.http.app import create_app
from cellbundle.service.http.server import make_server
from cellbundle.service.settings import ServiceSettings

PATIENCE_S = 30


@contextmanager
def serving(pool=None, **options):
    """A server that has started; ``address`` is where."""
    settings = ServiceSettings(bundles=("fake",), **options)
    pool = pool or InlinePool(segmenter())
    server = make_server(create_app(settings, pool), pool, settings)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        server.address = listening.getsockname()
        yield server
        server.should_exit = True
        thread.join(PATIENCE_S)
