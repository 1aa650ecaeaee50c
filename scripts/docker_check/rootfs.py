"""The steps of a Dockerfile on a copy of this machine's files: overlay mounts take the changes, chroot contains them.

This machine stands in for the base image, so it must have the same series of Python and be Linux; mounts need root.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .dockerfile import EXECUTED, Context, Instruction, assignments, fill_in, read_dockerfile, stages

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Not on the path of every root.
CHROOT = shutil.which("chroot", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "chroot"
NETWORK = ("PIP_", "SSL_", "REQUESTS_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")  # settings of this machine for pip
UNPRIVILEGED = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"]


def call(*command: str | Path) -> None:
    """Run a command that must succeed."""
    subprocess.run(list(map(str, command)), check=True)


class Stage:
    """One stage of a build.

    Args:
        folder: an empty folder for its files.
        base: a stage whose files and environment it begins with; without one, those of this machine.

    Attributes:
        environment: what ENV has set.
        user: number of the user and of the group.
        settings: the last ENTRYPOINT, CMD and HEALTHCHECK.
    """

    def __init__(self, folder: Path, base: "Stage | None" = None) -> None:
        self.folder, self.root, self.layer = folder, folder / "root", folder / "layer"
        for part in (self.root, self.layer, folder / "work"):
            part.mkdir(parents=True)
        if base is not None:  # copied, because an overlay takes no layer that lies below another
            call("cp", "--archive", f"{base.layer}/.", self.layer)
        options = f"lowerdir=/,upperdir={self.layer},workdir={folder / 'work'}"
        call("mount", "-t", "overlay", "overlay", "-o", options, self.root)
        for name in ("proc", "sys", "dev"):
            call("mount", "--rbind", f"/{name}", self.root / name)
        call("mount", "-t", "tmpfs", "tmpfs", "-o", "mode=1777", self.root / "tmp")
        self.environment = {"PATH": PATH} if base is None else dict(base.environment)
        self.arguments: dict[str, str] = {}
        self.user, self.folder_inside = "0:0", "/"
        self.settings: dict[str, list[str]] = {}

    def base_image(self) -> None:
        """Have ``python`` on the path, as the image of Python does."""
        python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        for parent in python.parents:
            inside = self.root / parent.relative_to("/")
            inside.chmod(inside.stat().st_mode | 0o011)  # of the copy: everybody may pass
        link = self.root / python.with_name("python").relative_to("/")
        if not link.exists():
            link.symlink_to(python.name)
        self.environment["PATH"] = f"{python.parent}:{PATH}"

    def command(self, words: Sequence[str], environment: Mapping[str, str], *limits: str) -> list[str]:
        """The command line that runs words inside, as the user and in the folder of this stage."""
        user, group = self.user.split(":")
        accounts = [line.split(":") for line in (self.root / "etc/passwd").read_text().splitlines()]
        home = next(account[5] for account in accounts if account[2] == user)
        values = {"HOME": home, **self.environment, **environment}
        return [
            *(CHROOT, str(self.root)),
            *("setpriv", f"--reuid={user}", f"--regid={group}", *(limits or ("--clear-groups",))),
            *("env", "-i", f"--chdir={self.folder_inside}", *(f"{name}={value}" for name, value in values.items())),
            *words,
        ]

    def run(self, script: str) -> None:
        """RUN."""
        network = {name: value for name, value in os.environ.items() if name.upper().startswith(NETWORK)}
        subprocess.run(self.command(["sh", "-c", script], network | self.arguments), check=True)

    def inside(self, path: str) -> Path:
        """A path of the stage as this machine sees it."""
        return self.root / os.path.normpath(Path(self.folder_inside, path)).lstrip("/")

    def copy(self, one: Instruction, context: Context, others: Mapping[str, "Stage"]) -> None:
        """COPY."""
        *sources, target = one.value.split()
        for source in sources:
            if "from" in one.flags:
                whole = others[one.flags["from"]].inside(source)
                self.inside(target).mkdir(parents=True, exist_ok=True)
                call("cp", "--archive", f"{whole}/." if whole.is_dir() else whole, self.inside(target))
                continue
            for file in context.files(source):
                below = file.relative_to(source) if (context.root / source).is_dir() else file.name
                place = self.inside(target) / below
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(context.root / file, place)


def build(root: Path, folder: Path, given: Mapping[str, str]) -> Stage:
    """Do what a Dockerfile says.

    Args:
        root: folder of the Dockerfile.
        folder: an empty folder for all layers.
        given: build arguments.

    Returns:
        The last stage.
    """
    instructions = read_dockerfile(root / "Dockerfile")
    context, known = Context(root), dict[str, Stage]()
    first = next(index for index, one in enumerate(instructions) if one.keyword == "FROM")
    outside: dict[str, str] = {}
    for one in instructions[:first]:
        outside |= {name: given.get(name, value) for name, value in assignments(one.value).items()}
    needed = f"python:{sys.version_info[0]}.{sys.version_info[1]}-"
    for number, (start, *rest) in enumerate(stages(instructions)):
        image, *name = fill_in(start.value, outside).split()
        if image in known:
            stage = Stage(folder / str(number), known[image])
        elif image.startswith(needed):
            stage = Stage(folder / str(number))
            stage.base_image()
        else:
            raise SystemExit(f"the base image is {image}, and this is Python {needed[7:-1]}; run this with that series")
        known[name[-1] if name else image] = stage
        for one in rest:
            step(stage, one, context, known, {**outside, **given})
    return stage


def step(
    stage: Stage, one: Instruction, context: Context, others: Mapping[str, Stage], given: Mapping[str, str]
) -> None:
    """Do one instruction."""
    print(f"{one.line:3d} {one.keyword} {one.value[:100]}", flush=True)
    value = one.value if one.keyword == "RUN" else fill_in(one.value, stage.arguments | stage.environment)
    if one.keyword == "ARG":
        stage.arguments |= {name: given.get(name, default) for name, default in assignments(value).items()}
    elif one.keyword == "ENV":
        stage.environment |= assignments(value)
    elif one.keyword == "WORKDIR":
        stage.inside(value).mkdir(parents=True, exist_ok=True)
        stage.folder_inside = f"/{stage.inside(value).relative_to(stage.root)}"
    elif one.keyword == "USER":
        stage.user = value
    elif one.keyword == "COPY":
        stage.copy(one._replace(value=value), context, others)
    elif one.keyword == "RUN":
        stage.run(value)
    elif one.keyword in EXECUTED:
        stage.settings[one.keyword] = one.words or []
    elif one.keyword != "EXPOSE":
        raise SystemExit(f"Dockerfile:{one.line}: {one.keyword} is not known here")
