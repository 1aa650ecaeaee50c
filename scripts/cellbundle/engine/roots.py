"""Workflows whose data and outputs are elsewhere: ``--basedir s3://…`` and the like, see ``cellbundle.io.remote``."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from monai.bundle import ConfigParser

from .. import distributed
from ..addresses import redact, split_query
from ..datalists.datalist import read_datalist, select
from ..errors import DatalistError
from ..io.folder import is_image
from ..io.ownership import is_record
from ..io.remote import Copy, Mirror, RemoteError, is_url
from ..record import LATEST, PREVIOUS

logger = logging.getLogger(__name__)

OUTPUTS = ("ckpt_path", "output_dir")
KEPT_FOLDERS = ("tracking",)  # below ckpt_path, needed to go on
FILE_KEYS = ("image", "label", "classes")
QUICK = 8  # at least as many entries as the configurations take with --quick
SECONDS = 10  # between looks for outputs that changed
SLOWEST = 300  # the same while the other side cannot be reached
RETRIES = (1, 5)  # seconds before each further attempt at the end
MAX_SHOWN = 5


class Roots:
    """The roots of a workflow that are elsewhere.

    ``localise`` copies what is read and puts folders here into the configuration. While this object is entered as a
    context, a thread sends the outputs that changed; at the end the rest follows. One process a machine does this.
    """

    def __init__(self) -> None:
        self.mirrors: list[Mirror] = []
        self.copies: dict[str, Copy] = {}  # by local folder
        self.leads = os.environ.get("LOCAL_RANK", "0") == "0"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def localise(self, parser: ConfigParser, mode: str) -> None:
        """Replace each address in the configuration by a folder here; the second time there is none left.

        Args:
            parser: ``ckpt_path``, ``output_dir``, ``basedir``, ``datalist``, ``input_dir`` and ``data_list_files`` of
                its configuration may be, or have, addresses.
            mode: train, eval or infer.

        Raises:
            DatalistError: if files that the data list names are missing.
            RemoteError: if a file system cannot be reached.
        """
        values = {key: _value(parser, key) for key in (*OUTPUTS, "basedir", "datalist", "input_dir")}
        remote = {key: value for key, value in values.items() if is_url(value)}
        for key in OUTPUTS:
            if key in remote:
                parser[key] = self._mirror(remote[key], key, mode == "train")
        if "basedir" in remote:
            parser["basedir"] = self._copy(remote["basedir"])
        if "datalist" in remote:
            parser["datalist"] = self._file(remote["datalist"])
        if "input_dir" in remote:
            parser["input_dir"] = self._images(remote["input_dir"])
        changed = self._lists(parser, mode)
        if remote or changed:
            distributed.barrier()

    def shown(self, folder: str | Path) -> str:
        """Return the address that a folder here is a copy of, without credentials, or the folder itself."""
        return next((redact(mirror.url) for mirror in self.mirrors if mirror.local == Path(folder)), str(folder))

    def elsewhere(self, folder: Path) -> set[str]:
        """Return the files that the remote folder of a folder here had at the start, relative to it."""
        names: set[str] = set()
        for mirror in self.mirrors:
            if self.leads and folder.is_relative_to(mirror.local):
                start = "".join(f"{part}/" for part in folder.relative_to(mirror.local).parts)
                names |= {name.removeprefix(start) for name in mirror.there if name.startswith(start)}
        return names

    def _mirror(self, url: str, key: str, training: bool) -> str:
        mirror = Mirror(url)
        self.mirrors.append(mirror)
        if self.leads:
            mirror.fetch(name for name in mirror.there if is_record(name))
        if key == "ckpt_path" and self.leads:
            there = mirror.listing().items()
            wanted = [name for name, is_folder in there if not is_folder or name in KEPT_FOLDERS]
            mirror.fetch(name for name in wanted if training or name not in (LATEST, PREVIOUS))
        mirror.note_present()  # what is removed before it is first sent must be removed there, too
        logger.info("%s is kept in %s and copied to %s", key, mirror.local, redact(url))
        return str(mirror.local)

    def _copy(self, url: str) -> str:
        copy = Copy(url)
        self.copies[str(copy.local)] = copy
        return str(copy.local)

    def _file(self, url: str) -> str:
        address, query = split_query(url)
        folder, _, name = address.rpartition("/")
        copy = Copy(folder, query=query)
        if self.leads and copy.fetch([name]):
            raise DatalistError(f"{redact(url)} does not exist; check the address")
        return str(copy.local / name)

    def _images(self, url: str) -> str:
        copy = Copy(url)
        if self.leads:
            names = [name for name in copy.listing() if is_image(name)]
            copy.fetch(names)
            for file in copy.local.iterdir():  # of images that are not there any more
                if is_image(file) and file.is_file() and file.name not in names:
                    file.unlink()
        return str(copy.local)

    def _lists(self, parser: ConfigParser, mode: str) -> bool:
        """Make all data lists local, and copy the files of their chosen entries; whether one was elsewhere."""
        given = _value(parser, "data_list_files")
        if given is None or (mode == "infer" and _value(parser, "input_dir") is not None):
            return False
        if isinstance(given, str):
            if not is_url(given) and not Path(given).is_file():
                return False  # what reads it says so
            given = ConfigParser.load_config_file(self._file(given) if is_url(given) else given)
        specs = [dict(spec) for spec in given]
        for spec in specs:
            if is_url(spec.get("datalist")):
                spec["datalist"] = self._file(spec["datalist"])
            if is_url(spec.get("basedir")):
                spec["basedir"] = self._copy(spec["basedir"])
            if self.leads and spec.get("datalist") and spec.get("basedir") in self.copies:
                self._entries(spec, parser, mode)
        if specs != list(given):
            parser["data_list_files"] = specs
        return specs != list(given)

    def _entries(self, spec: dict[str, Any], parser: ConfigParser, mode: str) -> None:
        copy = self.copies[spec["basedir"]]
        lists = read_datalist(spec["datalist"], copy.local, check_files=False, require_labels=mode != "infer")
        limit = QUICK if _value(parser, "quick") else None
        entries = [e for split in _splits(parser, mode) for e in select(lists, split, _value(parser, "fold"))[:limit]]
        paths = [entry[key] for entry in entries for key in FILE_KEYS if isinstance(entry.get(key), str)]
        missing = copy.fetch(Path(path).relative_to(copy.local).as_posix() for path in paths)
        if missing and mode != "infer":
            names = ", ".join(missing[:MAX_SHOWN]) + (", ..." if len(missing) > MAX_SHOWN else "")
            where = redact(copy.url)
            raise DatalistError(
                f"{spec['datalist']}: {len(missing)} files are missing in {where}; check the basedir: {names}"
            )

    def __enter__(self) -> "Roots":
        if self.mirrors and self.leads:
            self._stop.clear()
            self._thread = threading.Thread(target=self._watch, name="mirror", daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        pause: float = SECONDS
        while not self._stop.wait(pause):
            try:
                for mirror in self.mirrors:
                    mirror.push()
                pause = SECONDS
            except (RemoteError, OSError) as error:
                if pause == SECONDS:
                    logger.warning("outputs stay here for now, and are sent again later: %s", error)
                pause = min(2 * pause, SLOWEST)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Send the rest.

        Raises:
            RemoteError: if files stay here, unless another error is on its way.
        """
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        problems = [problem for mirror in self.mirrors for problem in _finish(mirror)]
        if problems and kind is not None:
            logger.error("%s", "; ".join(problems))
        elif problems:
            raise RemoteError("; ".join(problems))


def _finish(mirror: Mirror) -> Iterator[str]:
    """Send what is left, in some attempts; a sentence if it fails."""
    reason: Exception | None = None
    for pause in (0, *RETRIES):
        time.sleep(pause)
        try:
            mirror.push()
        except (RemoteError, OSError) as error:
            reason = error
        else:
            return
    names = mirror.pending()
    listed = ", ".join(names[:MAX_SHOWN]) + (", ..." if len(names) > MAX_SHOWN else "")
    yield (
        f"{len(names)} files are only in {mirror.local} ({listed}): {reason}; the next command with this address "
        "sends them, or copy them yourself"
    )


def _splits(parser: ConfigParser, mode: str) -> list[str]:
    if mode != "train":
        return [str(_value(parser, "split"))]
    return ["training", "validation", *(["testing"] if _value(parser, "final_test") else [])]


def _value(parser: ConfigParser, key: str) -> Any:
    """Parsed content of an id, None if there is none."""
    return parser.get_parsed_content(key) if key in parser else None
