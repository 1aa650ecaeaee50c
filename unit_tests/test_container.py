"""Dockerfile, .dockerignore and compose.yaml: the image is pinned, and the container has few rights."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.+)$", DOCKERFILE.replace("\\\n", " "), re.MULTILINE)


def values(keyword):
    return [value for name, value in INSTRUCTIONS if name == keyword]


def test_the_base_image_is_pinned():
    base = dict(argument.split("=", 1) for argument in values("ARG"))["BASE"]
    assert re.fullmatch(r"python:3\.1[1-3][\w.-]*@sha256:[0-9a-f]{64}", base)
    assert all(value.startswith(("${", "cpu ")) for value in values("FROM"))


def test_packages_are_those_that_were_tested():
    installs = [line for value in values("RUN") for line in re.findall(r"pip install [^;]*", value)]
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)


def test_it_runs_as_a_user_without_rights_and_says_whether_it_is_ready():
    assert values("USER") == ["10001:10001"]
    assert len(values("HEALTHCHECK")) == 1
    assert not values("ADD")
    for command in (*values("ENTRYPOINT"), *values("CMD"), values("HEALTHCHECK")[0].partition("CMD ")[2]):
        assert command.startswith("["), "a shell would not pass signals on"


def test_the_image_holds_no_secret():
    assert not re.search(r"(?i)token|secret|password|key", " ".join(values("ARG") + values("ENV")))
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = {word for value in values("COPY") if "--from" not in value for word in value.split()[:-1]}
    assert (
        copied
        == allowed
        == {"LICENSE", "README.md", "bundles", "constraints.txt", "pyproject.toml", "scripts/cellbundle", "setup.py"}
    )


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_the_container_is_limited(name):
    service = SERVICES[name]
    assert service["ports"] == ["127.0.0.1:5050:5050"]
    assert (service["read_only"], service["init"], service["cap_drop"]) == (True, True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit"} <= service.keys()
    assert all("size=" in mount for mount in service["tmpfs"])
    assert service["environment"] == ["CELLBUNDLE_TOKEN_FILE=/run/secrets/token"], "no token in the environment"
    assert service["build"]["args"].keys() <= {argument.split("=")[0] for argument in values("ARG")}
