"""Bodies and heads of requests over real sockets: size, speed, form."""

import socket
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
from unit_tests.service.fakes import InlinePool, png, segmenter
from unit_tests.service.threads import serving

from cellbundle.service.http.server import MOST_CONNECTIONS
from cellbundle.service.paths import Root
from cellbundle.service.workers.answers import Answer

PATIENCE_S = 30
READ_TIMEOUT_S = 1.0
LIMIT = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    roots = (Root.of(tmp_path_factory.mktemp("root")),)
    with serving(roots=roots, max_upload_bytes=LIMIT, read_timeout_s=READ_TIMEOUT_S) as one:
        yield one


@pytest.fixture
def address(server):
    return server.address


@pytest.fixture
def client(address):
    with socket.create_connection(address, PATIENCE_S) as one:
        yield one


def post(headers, body=b"", path="/v1/segment"):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode() + body


def until_closed(client):
    """All that the server sends until it closes the connection."""
    answer = b""
    with suppress(ConnectionResetError):
        while part := client.recv(65536):
            answer += part
    return answer


IMAGE = {"Content-Type": "image/png"}
UPLOAD = post(IMAGE | {"Content-Length": len(png())}, png())
LAST_UPLOAD = post(IMAGE | {"Content-Length": len(png()), "Connection": "close"}, png())
BEGUN = post(IMAGE | {"Content-Length": 1000}, b"x")
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_HEALTH = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
ALIVE = b'{"status":"alive"}'


def test_a_body_that_is_announced_as_too_large_is_not_waited_for(client):
    client.sendall(post(IMAGE | {"Content-Length": 10**12}))
    answer = until_closed(client)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too_large"' in answer
    assert b"connection: close" in answer.lower()


def test_a_client_that_asks_first_need_not_send_it(client):
    client.sendall(post(IMAGE | {"Content-Length": LIMIT + 1, "Expect": "100-continue"}))
    assert until_closed(client).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
def test_a_body_in_pieces_is_read_up_to_the_limit_only(client, kind):
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    first = head if kind.startswith("multi") else png()
    client.sendall(post({"Content-Type": kind, "Transfer-Encoding": "chunked"}, b"%x\r\n%b\r\n" % (len(first), first)))
    sent = 0
    piece = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"
    with suppress(BrokenPipeError, ConnectionResetError):
        while sent < 100 * LIMIT:
            client.sendall(piece)
            sent += 0x2000
    assert sent < 100 * LIMIT
    answer = until_closed(client)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")


def test_the_answer_to_too_large_a_body_arrives_though_it_is_still_being_sent(client):
    client.sendall(post(IMAGE | {"Transfer-Encoding": "chunked"}))
    for _ in range(LIMIT // 0x2000 + 1):
        client.sendall(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
    assert until_closed(client).startswith(b"HTTP/1.1 413 ")


def test_json_has_a_limit_of_its_own(client):
    client.sendall(post({"Content-Type": "application/json", "Content-Length": 2**16 + 1}, path="/seg_mask"))
    assert until_closed(client).startswith(b"HTTP/1.1 413 ")


useless = pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/v1/segment", {"Content-Type": "text/plain"}, 415), ("/none", IMAGE, 404), ("/v1/segment?format=x", IMAGE, 422)],
)


@useless
def test_a_body_that_is_of_no_use_is_not_read(client, path, headers, status):
    client.sendall(post(headers | {"Content-Length": LIMIT}, b"x", path))
    answer = until_closed(client)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close" in answer.lower()


@useless
def test_a_body_that_is_sent_after_the_answer_does_not_reset_the_connection(client, path, headers, status):
    """Clients send a request's head and its body in different packets, and read when they have sent all."""
    client.sendall(post(headers | {"Content-Length": LIMIT}, path=path))
    answer = client.recv(5)
    for _ in range(10):
        client.sendall(bytes(LIMIT // 10))
        time.sleep(0.01)
    while part := client.recv(65536):
        answer += part
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.endswith(b"}}")


def test_a_body_that_is_longer_than_it_says_is_cut_there(client):
    client.sendall(UPLOAD + HEALTH)
    answer = until_closed(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(ALIVE)


@pytest.mark.parametrize("length", ["-1", "1e3", "1, 2", "x"])
def test_lengths_that_are_none(client, length):
    client.sendall(post(IMAGE | {"Content-Length": length}))
    assert until_closed(client).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_never_ends_times_out(client):
    started = time.monotonic()
    client.sendall(post(IMAGE | {"Content-Length": 1000}, png()[:10]))
    answer = until_closed(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too_slow"' in answer
    assert READ_TIMEOUT_S * 0.9 < time.monotonic() - started < READ_TIMEOUT_S + 5


def test_a_body_in_drops_times_out(client):
    client.sendall(post(IMAGE | {"Transfer-Encoding": "chunked"}))
    started = time.monotonic()
    answer = b""
    client.settimeout(0.1)
    while not answer and time.monotonic() - started < PATIENCE_S:
        client.sendall(b"1\r\nx\r\n")
        try:
            answer = client.recv(65536)
        except TimeoutError:
            continue
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "head", [b"", b"G", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"POST /v1/segment HTTP/1.1\r\nX-"]
)
def test_a_head_that_never_ends_times_out(client, head):
    started = time.monotonic()
    client.sendall(head)
    assert until_closed(client) == b""
    assert time.monotonic() - started < READ_TIMEOUT_S + 5


def test_a_head_that_never_ends_after_another_request_times_out(client):
    client.sendall(HEALTH)
    answer = b""
    while not answer.endswith(ALIVE):
        answer += client.recv(65536)
    started = time.monotonic()
    client.sendall(b"GET /hea")
    assert until_closed(client) == b""
    assert time.monotonic() - started < READ_TIMEOUT_S + 5


def test_a_client_that_leaves_harms_nobody(address):
    for part in (b"", b"GET", BEGUN, post(IMAGE | {"Content-Length": "1"}, b"x")):
        with socket.create_connection(address) as one:
            one.sendall(part)
    assert ask(address, LAST_HEALTH).endswith(ALIVE)


@contextmanager
def connected(address, number):
    """Many connections."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address, PATIENCE_S)) for _ in range(number)]


def ask(address, request):
    """The whole answer to a request on a connection of its own."""
    with socket.create_connection(address, PATIENCE_S) as one:
        one.sendall(request)
        return until_closed(one)


def test_slow_uploads_keep_nobody_out(address):
    with connected(address, 40) as slow:
        for one in slow:
            one.sendall(BEGUN)
        started = time.monotonic()
        assert ask(address, LAST_UPLOAD).startswith(b"HTTP/1.1 200 ")
        assert ask(address, LAST_HEALTH).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - started < READ_TIMEOUT_S
        assert {until_closed(one)[:13] for one in slow} == {b"HTTP/1.1 408 "}


@pytest.mark.parametrize("begun", [b"", b"GET / HT", BEGUN])
def test_many_unfinished_requests_keep_nobody_out(address, begun):
    with connected(address, MOST_CONNECTIONS + 88) as idle:
        for one in idle:
            with suppress(ConnectionError):  # the oldest have made room
                one.sendall(begun)
        assert ask(address, LAST_HEALTH).endswith(ALIVE)


def test_connections_that_are_kept_for_the_next_request_make_room_too(address):
    with connected(address, MOST_CONNECTIONS + 8) as kept:
        for one in kept:
            one.sendall(HEALTH)
        assert ask(address, LAST_HEALTH).endswith(ALIVE)
        assert all(one.recv(9) == b"HTTP/1.1 " for one in kept[-8:])


def test_uploads_have_a_limit_together(address):
    def until(status):
        end = time.monotonic() + PATIENCE_S
        while not (answer := ask(address, LAST_UPLOAD)).startswith(status):
            assert time.monotonic() < end, answer
        return answer

    with connected(address, 33) as sent:  # worker and queue of the settings
        for one in sent:
            one.sendall(post(IMAGE | {"Content-Length": LIMIT}, bytes(LIMIT - 1)))
        assert b"retry-after: 1" in until(b"HTTP/1.1 503 ").lower()
    until(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/v1/segment", "/healthz"])
def test_two_lengths_of_one_body_are_refused(address, path):
    """One server may believe the first and another the second, and both see different requests."""
    both = IMAGE | {"Content-Length": 4, "Transfer-Encoding": "chunked"}
    smuggled = b"0\r\n\r\n" + HEALTH
    answer = ask(address, post(both, smuggled, path))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"two_lengths"' in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_an_answer_that_nobody_reads_is_given_up(server, monkeypatch):
    monkeypatch.setattr(server.pool, "handler", lambda jobs: [Answer(1, 0.1, bytes(50_000_000))])
    with socket.create_connection(server.address, PATIENCE_S) as one:
        one.sendall(UPLOAD)
        assert one.recv(5) == b"HTTP/"
        end = time.monotonic() + PATIENCE_S
        while any(c.client == one.getsockname() for c in server.server_state.connections):
            assert time.monotonic() < end, "it is still there"
            time.sleep(0.05)


def test_an_answer_that_is_read_slowly_arrives(server, monkeypatch):
    monkeypatch.setattr(server.pool, "handler", lambda jobs: [Answer(1, 0.1, bytes(30_000_000))])
    got = 0
    with socket.create_connection(server.address, PATIENCE_S) as one:
        one.sendall(LAST_UPLOAD)
        while part := one.recv(10_000_000):
            got += len(part)
            time.sleep(READ_TIMEOUT_S / 20)
    assert got > 30_000_000


def test_a_request_that_does_not_end_in_time_when_the_service_stops_is_told():
    pool = InlinePool(segmenter())
    pool.handler = None  # jobs never end
    with serving(pool, drain_s=0.1) as server, socket.create_connection(server.address, PATIENCE_S) as client:
        client.sendall(UPLOAD)
        while not pool.jobs:
            time.sleep(0.01)
        server.should_exit = True
        answer = until_closed(client)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"stopping"' in answer
