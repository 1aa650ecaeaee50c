"""Who may ask, and what nobody may see."""

import logging

import pytest
from unit_tests.service.fakes import FORM, TOKEN, InlinePool, error

from cellbundle.errors import ConfigError

from ..words import Like


def test_metrics(make):
    client = make()
    client.post("/v1/segment", files=FORM)
    client.get("/no/such/route")
    lines = client.get("/metrics").text.splitlines()
    assert 'cellbundle_requests_total{code="200",route="/v1/segment"} 1.0' in lines
    assert 'cellbundle_requests_total{code="404",route="other"} 1.0' in lines
    assert 'cellbundle_request_seconds_count{route="/v1/segment"} 1.0' in lines
    assert "cellbundle_queue_length 0.0" in lines
    assert "cellbundle_workers_alive 1.0" in lines
    assert "cellbundle_worker_restarts 0.0" in lines


def test_a_token_is_needed_for_all_but_the_page_and_health(make):
    client = make(token=TOKEN)
    for method, path in (("POST", "/v1/segment"), ("POST", "/seg_mask"), ("GET", "/v1/bundles"), ("GET", "/metrics")):
        for given in (None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ä"):
            headers = {} if given is None else {"authorization": given.encode()}
            answer = client.request(method, path, headers=headers)
            assert error(answer) == (401, "unauthorised")
            assert answer.headers["www-authenticate"] == "Bearer"
    for scheme in ("Bearer", "bearer"):
        assert client.get("/v1/bundles", headers={"authorization": f"{scheme} {TOKEN}"}).status_code == 200
    for path in ("/", "/healthz", "/readyz", "/openapi.json"):
        assert client.get(path).status_code == 200


def test_the_token_is_compared_in_constant_time(make, monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((len(a), len(b))) or a == b)
    client = make(token=TOKEN)
    client.get("/v1/bundles", headers={"authorization": "Bearer short"})
    client.get("/v1/bundles", headers={"authorization": f"Bearer {TOKEN}"})
    assert compared == [(32, 32)] * 2


def test_no_other_site_may_read_answers(make):
    client = make()
    origin = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    for answer in (client.get("/v1/bundles", headers=origin), client.options("/v1/segment", headers=origin)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/bundles", "/metrics", "/openapi.json", "/none"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5050", "127.0.0.1.evil.example", "192.0.2.1", "", "[::1"]
)
def test_without_a_token_other_hosts_are_refused(make, path, host):
    assert error(make().get(path, headers={"host": host})) == (403, "foreign_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:5050", "127.8.9.1", "[::1]:5050", "[::1]"])
def test_names_of_this_machine_are_allowed(make, host):
    assert make().get("/v1/bundles", headers={"host": host}).status_code == 200


def test_hosts_that_are_allowed(make):
    client = make(allowed_hosts=("cells.example", "2001:db8::1"))
    for host in ("cells.example", "Cells.Example:8080", "[2001:db8::1]:5050", "localhost"):
        assert client.get("/v1/bundles", headers={"host": host}).status_code == 200
    assert error(client.get("/v1/bundles", headers={"host": "a.cells.example"})) == (403, "foreign_host")
    assert make(allowed_hosts=("*",)).get("/v1/bundles", headers={"host": "evil.example"}).status_code == 200


@pytest.mark.parametrize("host", ["name:5050", "http://name", "a b", "", "a/b"])
def test_a_host_that_never_matches_is_refused(make, host):
    with pytest.raises(ConfigError, match=r"--allowed-host.*without scheme and port"):
        make(allowed_hosts=(host,))


def test_the_address_of_the_service_is_allowed_but_no_other_port_of_it(make):
    client = make(host="192.0.2.7")
    host = {"host": "192.0.2.7:5050"}
    assert client.get("/v1/bundles", headers=host | {"origin": "http://192.0.2.7:5050"}).status_code == 200
    assert error(client.get("/v1/bundles", headers=host | {"origin": "http://192.0.2.7:8888"})) == (403, "cross_site")
    answer = client.get("/v1/bundles", headers={"host": "evil.example"})
    assert answer.json()["error"]["message"] == Like(r"header Host.*'evil\.example'")


CROSS_SITE = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:3000"},  # another program of this machine
    {"origin": "http://[::1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_without_a_token_pages_of_other_sites_are_refused(make, headers, tmp_path):
    client = make(allowed_hosts=("*",))
    assert error(client.post("/v1/segment", files=FORM, headers=headers)) == (403, "cross_site")
    body = {"image_path": str(tmp_path / "root" / "a.png")}
    assert error(client.post("/seg_mask", json=body, headers=headers)) == (403, "cross_site")
    assert error(client.get("/v1/bundles", headers=headers)) == (403, "cross_site")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"},
        {"origin": "https://cells.example", "sec-fetch-site": "same-origin"},  # a proxy that sends its own Host
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
        {},
    ],
)
def test_the_page_and_programs_are_allowed(make, headers):
    client = make(allowed_hosts=("cells.example",))
    assert client.post("/v1/segment", files=FORM, headers=headers).status_code == 200


def test_a_link_of_another_site_may_be_followed(make):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    client = make()
    assert client.get("/", headers=headers).status_code == 200
    assert error(client.post("/v1/segment", files=FORM, headers=headers)) == (403, "cross_site")


def test_with_a_token_any_host_and_origin_is_allowed(make):
    headers = {"host": "evil.example", "origin": "https://evil.example", "authorization": f"Bearer {TOKEN}"}
    assert make(token=TOKEN).get("/v1/bundles", headers=headers).status_code == 200


def test_headers_of_every_answer(make):
    client = make(token=TOKEN)
    for path in ("/", "/healthz", "/none", "/v1/bundles"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self'; ")
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_an_unexpected_error_shows_nothing_to_anybody(make, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    pool = InlinePool(refused=ValueError("/secret/path"))
    pool.accepting = True
    answer = make(pool).post("/v1/segment", files=FORM)
    assert error(answer) == (500, "failed")
    assert "secret" not in answer.text + caplog.text
    assert "Traceback" not in caplog.text
    assert "ValueError at " in caplog.text


def test_logs_name_no_path(make, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    client = make()
    client.post("/seg_mask", json={"image_path": f"{tmp_path}/root/a.png"})
    client.post("/v1/segment", files=FORM)
    assert "POST /seg_mask 200" in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("cellbundle")]
    assert not [line for line in ours if str(tmp_path) in line]


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/static/../app.py", "/static/%2e%2e/app.py", "/docs", "/redoc"]
)
def test_there_is_nothing_else(make, path):
    assert error(make().get(path)) == (404, "not_found")


def test_a_wrong_method(make):
    answer = make().get("/v1/segment")
    assert error(answer) == (405, "wrong_method")
    assert answer.headers["allow"] == "POST"
