"""Everything that a run logs, on disk first: what is in the file survives the process and the server.

A run has a folder of its own, ``<ckpt_path>/tracking/<key>``:

- ``points.jsonl``, a line for each call: only ever appended to;
- ``state.json``: which run it is, and how much of the lines has arrived;
- ``lock``: locked by the process that writes or sends.
"""

import contextlib
import json
import logging
import os
import shutil
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ...io.write import atomic_path

try:
    import fcntl
except ImportError:  # Windows: nothing stops a second process
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LINES, STATE, LOCK = "points.jsonl", "state.json", "lock"
CHUNK = 1 << 18  # bytes that are read at once
MAX_IN_MEMORY = 20_000  # records that are kept where the disk takes none

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
        self.state: dict[str, Any] = {"offset": 0, "files": []} | _read_json(self.folder / STATE)
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
        line = json.dumps(record).encode() + b"\n"
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
                return Chunk([r for r in map(_parse, lines) if r], offset + sum(map(len, lines)))
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
                temporary.write_text(json.dumps(self.state, indent=2) + "\n")
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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:  # torn by the end of a process
        return None
    return record if isinstance(record, dict) else None


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
