"""What the OpenAPI document promises, and requests that are generated from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from unit_tests.service.fakes import TOKEN, png
from unit_tests.service.threads import serving

from cellbundle.service.paths import Root

STATUSES = {"400", "401", "403", "404", "408", "409", "413", "415", "422", "500", "503", "504"}
CONFIG = Path(__file__).resolve().parents[2] / "schemathesis.toml"


@pytest.fixture
def document(make):
    return make(token=TOKEN).get("/openapi.json").json()


@pytest.mark.slow
@pytest.mark.parametrize("token", [TOKEN, None])
def test_generated_requests_find_nothing(tmp_path, token):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.png").write_bytes(png())
    with serving(roots=(Root.of(tmp_path / "root"),), token=token) as server:
        url = "http://{}:{}/openapi.json".format(*server.address)
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
        command += ["--config-file", str(CONFIG), "run", url, "--max-examples", "30", "--generation-database", "none"]
        command += ["-H", f"Authorization: Bearer {TOKEN}", "--seed", "1"]
        plain = os.environ | {"NO_COLOR": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=500, env=plain, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Selected: 6/6" in done.stdout


def test_every_error_is_documented_with_an_example(document):
    paths = document["paths"]
    assert set(paths["/seg_mask"]["post"]["responses"]) == STATUSES | {"200"}
    assert set(paths["/v1/segment"]["post"]["responses"]) == STATUSES - {"404", "409"} | {"200"}
    answers = [a for methods in paths.values() for one in methods.values() for a in one["responses"].values()]
    for answer in answers:
        for kind in answer["content"].values():
            assert "example" in kind or kind["schema"].get("format") == "binary" or "$ref" in kind["schema"]


def test_the_models_have_examples(document):
    schemas = document["components"]["schemas"]
    assert schemas["MaskRequest"]["examples"] == [{"image_path": "/data/a.png"}]
    assert schemas["MaskAnswer"]["examples"] == [{"mask_path": "/data/a_mask.png"}]


def test_the_token_is_documented(document):
    assert document["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    protected = {path for path, methods in document["paths"].items() if any("security" in m for m in methods.values())}
    assert protected == {"/seg_mask", "/v1/segment", "/v1/bundles", "/metrics"}
