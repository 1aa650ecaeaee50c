"""What must hold for the Dockerfile and the compose file of a service."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from .dockerfile import EXECUTED, Context, Instruction, assignments, fill_in, read_dockerfile, stages

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
SECRET = re.compile(r"token|secret|passw|api_?key|credential", re.IGNORECASE)


def lint(root: Path) -> list[str]:
    """Problems of the files in a repository, each on one line; none if all is well."""
    instructions = read_dockerfile(root / "Dockerfile")
    problems = [
        *_images(instructions),
        *_last_stage(list(stages(instructions))[-1]),
        *(problem for one in instructions for problem in _instruction(one)),
        *_copies(instructions, Context(root)),
        *_compose(root, instructions),
    ]
    return [*problems, *_hadolint(root)]


def _images(instructions: list[Instruction]) -> list[str]:
    """Every image from outside has a tag that says a version, and a digest."""
    known: set[str] = set()
    defaults: dict[str, str] = {}
    problems = []
    for one in instructions:
        if one.keyword == "ARG" and not known:
            defaults |= assignments(one.value)
        if one.keyword == "FROM":
            image, *name = fill_in(one.value, defaults).split()
            tag = image.partition("@")[0].partition(":")[2]
            if image not in known and not re.search(r"\d", tag):
                problems.append(f"Dockerfile:{one.line}: {image} has no version in its tag")
            if image not in known and not DIGEST.search(image):
                problems.append(f"Dockerfile:{one.line}: {image} has no digest; append @sha256:…")
            known.add(name[-1] if name else image)
    return problems


def _last_stage(stage: list[Instruction]) -> list[str]:
    """The image that is run: not as root, with a health check, and signals reach the service."""
    last = {one.keyword: one for one in stage}
    missing = [word for word in ("USER", "HEALTHCHECK", "ENTRYPOINT") if word not in last]
    problems = [f"Dockerfile: the last stage has no {word}" for word in missing]
    if "USER" in last and not re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"].value):
        problems.append(f"Dockerfile:{last['USER'].line}: USER is {last['USER'].value}, expected numbers other than 0")
    in_a_shell = [one for one in last.values() if one.keyword in EXECUTED and one.words is None]
    return problems + [f"Dockerfile:{one.line}: {one.keyword} is run by a shell; give a list" for one in in_a_shell]


def _instruction(one: Instruction) -> list[str]:
    place = f"Dockerfile:{one.line}:"
    problems = []
    if one.keyword == "ADD":
        problems.append(f"{place} ADD unpacks and downloads; use COPY")
    if one.keyword in ("ARG", "ENV"):
        secrets = [name for name in assignments(one.value) if SECRET.search(name)]
        problems += [f"{place} {name} would stay in the image; give it when the container starts" for name in secrets]
    if one.keyword == "RUN":
        installs = re.findall(r"pip install[^;&|]*", one.value)
        problems += [f"{place} pip without --constraint" for text in installs if "--constraint" not in text]
        if "sudo" in one.value.split():
            problems.append(f"{place} sudo; use USER")
    return problems


def _copies(instructions: list[Instruction], context: Context) -> list[str]:
    """What is copied exists, .dockerignore lets it through, and no secret comes with it."""
    problems = []
    for one in instructions:
        if one.keyword == "COPY" and "from" not in one.flags:
            for source in one.value.split()[:-1]:
                files = context.files(source)
                if not files:
                    problems.append(f"Dockerfile:{one.line}: nothing of {source} gets past .dockerignore")
                secret = [path for path in files if path.suffix in (".pem", ".key") or path.name.startswith(".env")]
                problems += [f"Dockerfile:{one.line}: {path} may be a secret; leave it out" for path in secret]
    return problems


def _compose(root: Path, instructions: list[Instruction]) -> list[str]:
    known = {name for one in instructions if one.keyword == "ARG" for name in assignments(one.value)}
    services: dict[str, Any] = yaml.safe_load((root / "compose.yaml").read_text())["services"]
    problems = []
    for name, service in services.items():
        place = f"compose.yaml: {name}:"
        unknown = set(service["build"]["args"]) - known
        problems += [f"{place} the Dockerfile has no ARG {argument}" for argument in sorted(unknown)]
        for port in service["ports"]:
            if not str(port).startswith("127.0.0.1:"):
                problems.append(f"{place} port {port} is open to other machines; begin with 127.0.0.1:")
        for key, wanted in (("read_only", True), ("cap_drop", ["ALL"]), ("security_opt", ["no-new-privileges:true"])):
            if service.get(key) != wanted:
                problems.append(f"{place} {key} is {service.get(key)}, expected {wanted}")
        problems += [f"{place} {limit} is missing" for limit in ("mem_limit", "pids_limit") if limit not in service]
        problems += [f"{place} tmpfs {one} has no size" for one in service["tmpfs"] if "size=" not in one]
        for variable in service.get("environment", []):
            if SECRET.search(str(variable)) and not str(variable).partition("=")[2].startswith("/run/secrets/"):
                problems.append(f"{place} {variable.partition('=')[0]} is in the environment; use a secret")
    return problems


def _hadolint(root: Path) -> list[str]:
    program = shutil.which("hadolint")
    if program is None:
        return []
    done = subprocess.run([program, "--no-color", "Dockerfile"], cwd=root, capture_output=True, text=True, check=False)
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]
