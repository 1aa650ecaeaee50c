"""The check of the container's files: what it refuses, and that it carries out what a Dockerfile says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
FILES = ("Dockerfile", ".dockerignore", "compose.yaml")

# A service of a few lines, which says who it is; its build leaves a file for it.
TOY = """
import http.server, json, os, signal
from pathlib import Path

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())
    def do_GET(self):
        self.answer("cellbundle")
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Path("/var/cache/cellbundle/written").write_bytes(body)
        try:
            Path("/opt/toy/written").write_bytes(body)
        except OSError:
            self.answer(json.dumps({"n": int(Path("/opt/toy/built").read_text())}))

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.HTTPServer(("127.0.0.1", 5050), Handler).serve_forever()
"""
TOY_DOCKERFILE = f"""
ARG PYTHON={sys.version_info[0]}.{sys.version_info[1]}
FROM python:${{PYTHON}}-slim AS build
ARG CELLS=1
WORKDIR /made
COPY toy toy
RUN echo $CELLS > toy/built \\
    && test ! -e toy/left_out
FROM python:${{PYTHON}}-slim AS plain
ENV GREETING=hello
FROM plain
COPY --from=build /made/toy /opt/toy
RUN install --directory --owner=10001 --group=10001 /var/cache/cellbundle \\
    && useradd --uid 10001 --no-create-home toy && test $GREETING = hello && test "$(id -u)" = 0
USER 10001:10001
RUN test "$(id -u)" = 10001
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:5050/')"]
ENTRYPOINT ["python"]
CMD ["/opt/toy/toy.py"]
"""
BUILD = """
import ctypes, sys
from pathlib import Path
from docker_check import container, rootfs
image = rootfs.build(Path("context"), Path("layers"), {"CELLS": "7"})
assert not ctypes.CDLL(None).unshare(0x40000000)
raise SystemExit("; ".join(container.check(image, Path("context/toy/toy.py"))) or 0)
"""


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def problems(root):
    from docker_check.lint import lint

    return lint(root)


def changed(tmp_path, file, old, new):
    """A copy of what an image is made from, with one text replaced."""
    for name in (*FILES, "constraints.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for path in ("scripts/cellbundle/a.py", "bundles/cell_unet/models/model.pt", "data/secret.key"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    return tmp_path


def test_the_files_of_the_repository_are_fine():
    assert problems(ROOT) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("Dockerfile", "python:3.11-slim-bookworm@", "python:latest@", "has no version in its tag"),
        ("Dockerfile", "@sha256:a36c24", " #", "python:3.11-slim-bookworm has no digest"),
        ("Dockerfile", "USER 10001:10001", "USER 0:0", "USER is 0:0"),
        ("Dockerfile", "USER 10001:10001", "", "has no USER"),
        ("Dockerfile", "HEALTHCHECK", "# ", "has no HEALTHCHECK"),
        ("Dockerfile", 'CMD ["--bundle", "cell_unet"]', "CMD --bundle cell_unet", "CMD is run by a shell"),
        ("Dockerfile", "COPY bundles", "ADD bundles", "use COPY"),
        ("Dockerfile", "COPY bundles /opt", "COPY data /opt", "nothing of data gets past"),
        ("Dockerfile", '--constraint constraints.txt ".[serve]"', '".[serve]"', "pip without --constraint"),
        ("Dockerfile", 'ARG TORCH_INDEX=""', "ARG TORCH_INDEX API_TOKEN=x", "API_TOKEN would stay in the image"),
        (".dockerignore", "!bundles", "!bundles\n!data", None),
        ("compose.yaml", "127.0.0.1:5050:5050", "5050:5050", "port 5050:5050 is open"),
        ("compose.yaml", "read_only: true", "read_only: false", "read_only is False"),
        ("compose.yaml", "{VARIANT: cuda}", "{FLAVOUR: cuda}", "no ARG FLAVOUR"),
        (
            "compose.yaml",
            "CELLBUNDLE_TOKEN_FILE=/run/secrets/token",
            "CELLBUNDLE_TOKEN",
            "CELLBUNDLE_TOKEN is in the env",
        ),
        ("compose.yaml", "mem_limit", "mem_reservation", "mem_limit is missing"),
        ("compose.yaml", "pids_limit", "# pids_limit", "pids_limit is missing"),
        ("compose.yaml", "size=1g,", "", "tmpfs /tmp:mode=1777 has no size"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, monkeypatch, file, old, new, problem):
    monkeypatch.setattr(shutil, "which", lambda name: None)  # the checks of our own
    found = problems(changed(tmp_path, file, old, new))
    if problem is None:
        assert found == []
    else:
        assert any(problem in one for one in found), found


def test_a_secret_that_is_copied_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    root = changed(tmp_path, "Dockerfile", "COPY bundles /opt", "COPY data bundles /opt")
    (root / ".dockerignore").write_text("")
    assert [one for one in problems(root) if "data/secret.key may be a secret" in one]


def test_dockerignore_lets_through_what_its_last_match_says(tmp_path):
    from docker_check.dockerfile import Context

    (tmp_path / ".dockerignore").write_text("*\n!bundles\nbundles/*/eval\n**/__pycache__\n")
    context = Context(tmp_path)
    held = ["bundles", "bundles/a/b.py", "bundles/a/evaluation"]
    left = ["data", "bundles/a/eval/x", "bundles/a/b/__pycache__/c"]
    assert all(context.holds(PurePosixPath(path)) for path in held)
    assert not any(context.holds(PurePosixPath(path)) for path in left)


def test_instructions_are_joined_over_lines(tmp_path):
    from docker_check.dockerfile import fill_in, read_dockerfile

    text = '# a\nFROM x AS y\nRUN --mount=type=cache,target=/c a \\\n# b\n  && b\nCMD ["c", "d"]\n'
    (tmp_path / "Dockerfile").write_text(text)
    first, second, third = read_dockerfile(tmp_path / "Dockerfile")
    assert (first.line, first.keyword, first.value) == (2, "FROM", "x AS y")
    assert (second.flags, second.value) == ({"mount": "type=cache,target=/c"}, "a && b")
    assert third.words == ["c", "d"]
    assert fill_in("${A}-$B$C", {"A": "1", "B": "2"}) == "1-2"


def mounts_work(folder):
    for name in ("up", "work", "root"):
        (folder / name).mkdir(parents=True)
    options = f"lowerdir=/,upperdir={folder}/up,workdir={folder}/work"
    script = f"mount -t overlay overlay -o {options} {folder}/root && ip link show lo"
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", script]
    possible = sys.platform == "linux" and os.geteuid() == 0
    return possible and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_a_dockerfile_is_carried_out_as_its_user_on_read_only_files(tmp_path):
    if not mounts_work(tmp_path / "try"):
        pytest.skip("needs Linux, root and overlay mounts")
    from check_docker import ALONE

    (tmp_path / "layers").mkdir()
    toy = tmp_path / "context" / "toy"
    toy.mkdir(parents=True)
    (toy / "toy.py").write_text(TOY)
    (toy / "left_out").touch()
    (tmp_path / "context" / "Dockerfile").write_text(TOY_DOCKERFILE)
    (tmp_path / "context" / ".dockerignore").write_text("toy/left_out\n")
    command = [*ALONE, sys.executable, "-c", BUILD]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 cells in toy.py" in done.stdout
    assert not (tmp_path / "layers" / "1" / "root" / "proc" / "1").exists(), "mounts are left"
    assert not Path("/opt/toy").exists()
