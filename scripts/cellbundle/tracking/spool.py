"""Everything that a run logs, on disk first: what is in the file survives the process and the server.

A run has a folder of its own, ``<ckpt_path>/tracking/<key>``:

- ``points.jsonl``, a line for each call: only ever appended to;
- ``state.json``: which run it is, and how much of the lines has arrived;
- ``lock``: locked by the process that writes or sends.

Lines and state have a checksum. A damaged line is left out; a damaged state is renamed, and all lines are sent again.
"""

import contextlib
import json
import logging
import os
import shutil
import threading
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..io.sealed import seal, unseal
from ..io.write import atomic_path

try:
    import fcntl
except ImportError:  # Windows: nothing stops a second process
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LINES, STATE, LOCK = "points.jsonl", "state.json", "lock"
CHUNK = 1 << 18  # bytes that are read at once
MAX_IN_MEMORY = 20_000  # records that are kept where the disk takes none
CHECKSUM = b'{"crc": '  # a line begins with it
KEYS = {"time", "values", "step", "params", "tags", "file", "status"}  # of a record
MAX_INTEGER = 2**63 - 1  # of an offset in a file, and of a number that MLflow takes

Record = dict[str, Any]
_held: set[Path] = set()  # locks of this process; those of the system are between processes only


@dataclass(frozen=True)
class Chunk:
    """Some records in order.

    Attributes:
        records: what was logged.
        end: offset in the file behind them.
    """

    records: list[Record]
    end: int


class Spool:
    """The folder of one run. ``append`` may be called from any thread, all else from the one that sends.

    Nothing here raises for what the disk does: records that it does not take are kept in memory, the latest
    ``MAX_IN_MEMORY`` of them.

    Args:
        folder: of the run; made when needed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self.state: dict[str, Any] = {"offset": 0, "files": []} | _read_state(self.folder / STATE)
        self._memory: deque[Record] = deque()
        self._lost = 0
        self._mutex = threading.Lock()
        self._lock_file: BinaryIO | None = None
        self._descriptor: int | None = None
        self._disk_failed = False

    def lock(self) -> bool:
        """Take the folder for this process; False if another one, or another tracker of this one, has it."""
        if self.folder in _held:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.folder / LOCK).open("ab")
            if fcntl is not None:
                # Not flock: the workers of a data loader would inherit it and outlive a killed training.
                fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None
                return False
            self._complain(error)
        except OSError as error:  # no such folder, or a file system without locks
            self._complain(error)
        _held.add(self.folder)
        return True

    def append(self, record: Record) -> None:
        """Keep a record: on disk, or in memory if that fails."""
        line = _line(record)
        with self._mutex:
            try:
                self._write(line)
            except OSError as error:
                self._complain(error)
                self._memory.append(record)
                if len(self._memory) > MAX_IN_MEMORY:
                    self._memory.popleft()
                    self._lost += 1

    def _write(self, line: bytes) -> None:
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:  # somebody removed the file
            os.close(self._descriptor)
            self._descriptor = None
        if self._descriptor is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / LINES
            size = path.stat().st_size if path.is_file() else 0
            self.state["offset"] = min(self.state["offset"], size)  # a power cut may take lines that have arrived
            torn = size > 0 and not _ends_with_newline(path)  # a killed process may leave half a line
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            line = b"\n" + line if torn else line
        if (written := os.write(self._descriptor, line)) < len(line):  # the disk is full: no half lines
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError("the disk is full")

    def sync(self) -> None:
        """Wait until all records are on the disk, as a power cut may follow."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)

    def read(self) -> Chunk | None:
        """The next records that have not arrived: those of the file first. None if there are none."""
        offset = self.state["offset"]
        with contextlib.suppress(OSError), (self.folder / LINES).open("rb") as file:
            file.seek(offset)
            lines = [line for line in file.readlines(CHUNK) if line.endswith(b"\n")]
            if lines:
                records = [record for record in map(_parse, lines) if record]
                if damaged := sum(not line.isspace() for line in lines) - len(records):
                    logger.warning("tracking: %d damaged lines of %s are left out", damaged, self.folder / LINES)
                return Chunk(records, offset + sum(map(len, lines)))
        with self._mutex:
            records = list(self._memory)
        return Chunk(records, offset) if records else None

    def commit(self, chunk: Chunk) -> None:
        """Note that a chunk has arrived."""
        if chunk.end > self.state["offset"]:
            self.state["offset"] = chunk.end
        else:
            done = {id(record) for record in chunk.records}
            with self._mutex:
                self._memory = deque(record for record in self._memory if id(record) not in done)
        self.save()

    def save(self) -> None:
        """Write the state."""
        try:
            with atomic_path(self.folder / STATE) as temporary:
                temporary.write_text(json.dumps(seal(self.state), indent=2) + "\n")
        except OSError as error:  # an older state sends again what has arrived, which changes nothing
            self._complain(error)

    def remaining(self) -> int:
        """Number of records that have not arrived."""
        count = len(self._memory)
        with contextlib.suppress(OSError), (self.folder / LINES).open("rb") as file:
            file.seek(self.state["offset"])
            count += sum(line.endswith(b"\n") for line in file)
        return count

    def last(self, name: str) -> Any:
        """Last value of a name in all records on disk; None without one."""
        value = None
        with contextlib.suppress(OSError), (self.folder / LINES).open("rb") as file:
            for record in filter(None, map(_parse, file)):
                value = record.get(name, value)
        return value

    @property
    def is_done(self) -> bool:
        """Whether nothing remains that somebody could want."""
        waiting = self.state["files"] or self.state.get("status") or self.state.get("refused")
        return not waiting and self.remaining() == 0

    def close(self, keep: bool = True) -> None:
        """Give the folder back; ``keep=False`` removes it."""
        with self._mutex:
            if self._lost:
                logger.warning("tracking: the disk took nothing, so %d of the first records are lost", self._lost)
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # there are other runs
                self.folder.parent.rmdir()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None
        _held.discard(self.folder)

    def _complain(self, error: OSError) -> None:
        if not self._disk_failed:
            logger.warning(
                "tracking: %s takes no data (%s); the training goes on, and the latest %d records are kept in memory "
                "until the server has them; make room, or give a ckpt_path that can be written",
                self.folder,
                error,
                MAX_IN_MEMORY,
            )
        self._disk_failed = True


def _read_state(path: Path) -> dict[str, Any]:
    """Content of ``state.json``; empty if there is none, or it is damaged: then the file gets another name."""
    try:
        state = unseal(path.read_bytes(), required=False)
        if not _is_sound_state(state):
            raise ValueError("has values of wrong types")  # noqa: TRY301 - as for any other damage
    except OSError:
        return {}
    except ValueError as error:
        aside = path.with_name(f"{path.name}.damaged")
        logger.warning(
            "tracking: %s is damaged (%s); it is kept as %s, and all lines are sent again", path, error, aside.name
        )
        with contextlib.suppress(OSError):
            path.replace(aside)
        return {}
    return state


def _is_sound_state(state: dict[str, Any]) -> bool:
    numbers = [state.get(name, 0) for name in ("offset", "refused")]
    files = state.get("files", [])
    sound_files = isinstance(files, list) and all(map(_is_file, files))
    return sound_files and all(type(number) is int and 0 <= number <= MAX_INTEGER for number in numbers)  # no bool


def _line(record: Record) -> bytes:
    """A record as JSON with its checksum."""
    text = json.dumps(record).encode() + b"\n"
    return CHECKSUM + b"%d, " % zlib.crc32(text) + text[1:]


def _parse(line: bytes) -> Record | None:
    """Return the record of a line; None if it is damaged, or torn by the end of a process.

    Lines of former versions have no checksum.
    """
    has_checksum = line.startswith(CHECKSUM)
    if has_checksum:
        checksum, _, content = line.removeprefix(CHECKSUM).partition(b", ")
        line = b"{" + content
        if checksum != b"%d" % zlib.crc32(line):
            return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not _is_sound(record):
        return None
    return record if has_checksum or record.keys() <= KEYS else None


def _is_sound(record: Record) -> bool:
    """Whether what an upload takes from a record has its types."""
    values, file, status = record.get("values", {}), record.get("file"), record.get("status")
    whole = [record.get(name) for name in ("time", *(["step"] if values else []))] if values or status else []
    return (
        isinstance(values, dict)
        and all(isinstance(value, float) or _is_integer(value) for value in values.values())
        and all(map(_is_integer, whole))
        and all(_is_text_table(record.get(name, {})) for name in ("params", "tags"))
        and (file is None or _is_file(file))
        and (status is None or isinstance(status, str))
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and abs(value) <= MAX_INTEGER


def _is_text_table(table: Any) -> bool:
    return isinstance(table, dict) and all(isinstance(text, str) for text in table.values())


def _is_file(entry: Any) -> bool:
    """Whether an entry is the path of a file and the folder that it goes to."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
