"""Queue of a run on disk: records stay there until the server has them, also after the end of the process.

Each run has a folder ``<ckpt_path>/tracking/<key>``:

- ``points.jsonl``: one record per line, append only;
- ``state.json``: identity of the run, and the offset of the first line that was not sent;
- ``lock``: locked by the process that writes or sends.

Lines and state have a checksum. A damaged line is skipped; a damaged state is renamed, and all lines are sent again.
``run.json`` beside the checkpoints names the run for evaluations.
"""

import contextlib
import json
import logging
import os
import shutil
import threading
import time
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

RUN_FILE = "run.json"  # beside the checkpoints
RUN_KEYS = ("run_id", "key", "experiment", "experiment_id", "run_name", "tracking_uri")  # of run.json
LINES, STATE, LOCK = "points.jsonl", "state.json", "lock"
CHUNK = 1 << 18  # bytes per read
MAX_IN_MEMORY = 20_000  # records that are kept in memory after a disk error
CHECKSUM = b'{"crc": '  # first bytes of a line
KEYS = {"time", "values", "step", "params", "tags", "file", "status"}  # of a record
MAX_INTEGER = 2**63 - 1  # of file offsets and of MLflow's integers

Record = dict[str, Any]
_held: set[Path] = set()  # folders that this process has locked; locks of the system exclude other processes only


@dataclass(frozen=True)
class Chunk:
    """Consecutive records.

    Attributes:
        records: in the order in which they were appended.
        end: file offset behind the records.
    """

    records: list[Record]
    end: int


class Spool:
    """Folder of one run. ``append`` is thread-safe; all other methods belong to the thread that sends.

    Disk errors never raise: records that cannot be written are kept in memory, the latest ``MAX_IN_MEMORY`` of them.

    Args:
        folder: of the run; made when needed.

    Attributes:
        state: content of ``state.json``.
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
        """Lock the folder; False if another process, or another tracker of this process, holds the lock."""
        if self.folder in _held:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.folder / LOCK).open("ab")
            if fcntl is not None:
                # Not flock: workers of a data loader inherit it, and outlive a killed training.
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
        """Append a record to the file, or to memory after a disk error."""
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
        if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:  # the file was removed
            os.close(self._descriptor)
            self._descriptor = None
        if self._descriptor is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / LINES
            size = path.stat().st_size if path.is_file() else 0
            self.state["offset"] = min(self.state["offset"], size)  # sent lines may be lost in a power cut
            is_torn = size > 0 and not _ends_with_newline(path)  # a killed process may leave half a line
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            line = b"\n" + line if is_torn else line
        if (written := os.write(self._descriptor, line)) < len(line):  # the disk is full: no half lines
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError("the disk is full")

    def sync(self) -> None:
        """Wait until all records are on the disk and survive a power cut."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)

    def read(self) -> Chunk | None:
        """Return the next records to send, those of the file first; None without any."""
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
        """Save that a chunk was sent."""
        if chunk.end > self.state["offset"]:
            self.state["offset"] = chunk.end
        else:
            sent = {id(record) for record in chunk.records}
            with self._mutex:
                self._memory = deque(record for record in self._memory if id(record) not in sent)
        self.save()

    def save(self) -> None:
        """Write ``state.json``."""
        try:
            with atomic_path(self.folder / STATE) as temporary:
                temporary.write_text(json.dumps(seal(self.state), indent=2) + "\n")
        except OSError as error:  # with an older state, records are sent twice, which changes nothing
            self._complain(error)

    def write_run_file(self) -> None:
        """Write ``run.json``, if the state has a path for it."""
        path = self.state.get("run_file")
        if not path:
            return
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps({key: self.state.get(key) for key in RUN_KEYS}, indent=2) + "\n")
        except OSError as error:
            logger.warning("tracking: %s cannot be written: %s", path, error)

    def remaining(self) -> int:
        """Return the number of records that were not sent."""
        count = len(self._memory)
        with contextlib.suppress(OSError), (self.folder / LINES).open("rb") as file:
            file.seek(self.state["offset"])
            count += sum(line.endswith(b"\n") for line in file)
        return count

    def last(self, key: str) -> Any:
        """Return the last value of a key of the records on disk; None without one."""
        value = None
        with contextlib.suppress(OSError), (self.folder / LINES).open("rb") as file:
            for record in filter(None, map(_parse, file)):
                value = record.get(key, value)
        return value

    @property
    def is_done(self) -> bool:
        """Whether everything was sent and accepted."""
        unsent = self.state["files"] or self.state.get("status") or self.state.get("refused")
        return not unsent and self.remaining() == 0

    def close(self, keep: bool = True) -> None:
        """Close the files and release the lock; ``keep=False`` removes the folder."""
        with self._mutex:
            if self._lost:
                logger.warning("tracking: the disk took nothing, so %d of the first records are lost", self._lost)
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty: other runs
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


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def read_run_file(folder: Path) -> dict[str, Any]:
    """Return the content of the ``run.json`` of a folder; empty if it is missing or invalid."""
    try:
        content = json.loads((folder / RUN_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_state(path: Path) -> dict[str, Any]:
    """Return the content of ``state.json``; empty if it is missing or damaged. A damaged file is renamed."""
    try:
        state = unseal(path.read_bytes(), required=False)
        if not _is_sound_state(state):
            raise ValueError("has values of wrong types")  # noqa: TRY301 - as for any other damage
    except OSError:
        return {}
    except ValueError as error:
        renamed = path.with_name(f"{path.name}.damaged")
        logger.warning(
            "tracking: %s is damaged (%s); it is kept as %s, and all lines are sent again", path, error, renamed.name
        )
        with contextlib.suppress(OSError):
            path.replace(renamed)
        return {}
    return state


def _is_sound_state(state: dict[str, Any]) -> bool:
    numbers = [state.get(name, 0) for name in ("offset", "refused")]
    files = state.get("files", [])
    are_files = isinstance(files, list) and all(map(_is_file, files))
    return are_files and all(type(number) is int and 0 <= number <= MAX_INTEGER for number in numbers)  # no bool


def _line(record: Record) -> bytes:
    """Return a record as a line of JSON with a checksum."""
    text = json.dumps(record).encode() + b"\n"
    return CHECKSUM + b"%d, " % zlib.crc32(text) + text[1:]


def _parse(line: bytes) -> Record | None:
    """Return the record of a line; None if the line is damaged. Lines of former versions have no checksum."""
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
    """Whether all values of a record have the types that an upload expects."""
    values, file, status = record.get("values", {}), record.get("file"), record.get("status")
    integers = [record.get(key) for key in ("time", *(["step"] if values else []))] if values or status else []
    return (
        isinstance(values, dict)
        and all(isinstance(value, float) or _is_integer(value) for value in values.values())
        and all(map(_is_integer, integers))
        and all(_has_strings(record.get(key, {})) for key in ("params", "tags"))
        and (file is None or _is_file(file))
        and (status is None or isinstance(status, str))
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and abs(value) <= MAX_INTEGER


def _has_strings(table: Any) -> bool:
    return isinstance(table, dict) and all(isinstance(text, str) for text in table.values())


def _is_file(entry: Any) -> bool:
    """Whether an entry is a pair of a file's path and its folder in the run."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
