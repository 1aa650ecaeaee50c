"""Folders on other file systems, through fsspec: what is read is copied here once, what is written is copied back."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..addresses import is_address, redact, redact_message, redacted_name, split_scheme
from ..errors import CellBundleError, ConfigError, DependencyError, redact_error
from . import atomic_path
from .ownership import is_record

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "CELLBUNDLE_CACHE"  # folder of all copies; by default ~/.cache/cellbundle
STATE = ".remote.json"  # in a copy: which version of each file there is which version here
THREADS = 16  # files under way at once
WITH_RENAME = {"file", "local", "sftp", "ssh"}  # write in place; object stores show a file when it is complete
VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")  # what fsspec tells


class RemoteError(CellBundleError):
    """A file system elsewhere cannot be reached, or refuses."""


def is_url(value: Any) -> bool:
    """Whether a root is an address: ``s3://…``, ``file://…``, ``dbfs:/…``. A plain path, also ``/Volumes/…``, is not.

    Raises:
        ConfigError: for an address that lost a slash in ``pathlib``, or a chain of addresses.
    """
    if not isinstance(value, str):
        return False
    scheme, n_slashes = split_scheme(value)
    if n_slashes == 1 and scheme != "dbfs":
        raise ConfigError(f"{redact(value)} has one slash after {scheme}:, expected two; write {scheme}://…")
    if "::" in value and is_address(value) and n_slashes < 2:
        raise ConfigError(f"{redact(value)} is a chain of addresses; give the address of the folder or file itself")
    return bool(scheme)


def open_url(url: str) -> tuple[Any, str]:
    """File system of an address and the path there.

    ``dbfs:/Volumes/…`` and ``dbfs:/…`` are read where Databricks mounts them, if it does.

    Raises:
        DependencyError: if fsspec, or the package of the protocol, is not installed.
        ConfigError: for a protocol that fsspec does not know.
        RemoteError: if the file system does not open, for want of credentials for example.
    """
    if find_spec("fsspec") is None:
        raise DependencyError(f"{redact(url)} needs fsspec, which is not installed; pip install 'cellbundle[remote]'")
    import fsspec  # noqa: PLC0415  (optional)

    if url.lower().startswith("dbfs:"):
        url = _mounted("/" + url.partition(":")[2].lstrip("/"))
    protocol = url.partition("://")[0]
    try:
        files, path = fsspec.url_to_fs(url)
    except ImportError as error:
        raise DependencyError(f"{protocol}:// needs a package that is not installed: {error}") from error
    except Exception as error:  # noqa: BLE001  (raised again)
        cause = redact_error(error, url)
        if protocol not in fsspec.available_protocols():
            raise ConfigError(
                f"{redact(url)}: {protocol}:// is not known to fsspec; use s3://, file:// or others"
            ) from cause
        reason = redact_message(error, url)
        raise RemoteError(f"{redact(url)} cannot be opened ({type(error).__name__}: {reason})") from cause
    return files, path.rstrip("/")


def _mounted(path: str) -> str:
    """Address of a path of DBFS, where Databricks mounts it or through its interface."""
    top, mounted = ("/Volumes", path) if path.startswith("/Volumes/") else ("/dbfs", f"/dbfs{path}")
    return f"file://{mounted}" if Path(top).is_dir() else f"dbfs://{path}"


def cache_folder() -> Path:
    """Where copies are kept."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "cellbundle").absolute()


class Copy:
    """Files of a folder elsewhere, and their copies here, which are made anew when a file changes there.

    Args:
        url: of the folder.
        kind: "data" or "outputs", whose copies stand apart.
        query: of the files, such as ``?sig=…``; it follows their names there, not here.

    Attributes:
        local: the folder here. Its name shows no user info and no query.
    """

    def __init__(self, url: str, kind: str = "data", query: str = "") -> None:
        self.url, self.query = url.rstrip("/"), query
        self.files, self.root = open_url(self.url)
        self.local = cache_folder() / kind / redacted_name(self.url, self.root, query)
        self.state: dict[str, list[Any]] = {}  # version there and stamp here by name
        self.state.update(_read_state(self.local / STATE))

    def _there(self, name: str) -> str:
        """Path of a file there."""
        return f"{self.root}/{name}{self.query}"

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Make one kind of all errors of a file system, and keep what was noted whatever happens."""
        try:
            yield
        except CellBundleError:
            raise
        except Exception as error:  # noqa: BLE001  (raised again)
            address = f"{self.url}{self.query}"
            reason = redact_message(error, address) or "no reason given"
            message = f"{redact(self.url)}: {type(error).__name__}: {reason}"
            raise RemoteError(message) from redact_error(error, address)
        finally:
            self._save()

    def listing(self) -> dict[str, bool]:
        """Names in the folder, and whether they are folders; none if it does not exist."""
        with self.reaching():
            self.files.invalidate_cache()
            try:
                infos = self.files.ls(self.root, detail=True)
            except FileNotFoundError:
                return {}
            return {Path(info["name"]).name: info["type"] == "directory" for info in infos}

    def fetch(self, names: Iterable[str]) -> list[str]:
        """Copy files, and all in folders of these names, unless they are here as they are there.

        Args:
            names: relative to the folder, "/" between levels.

        Returns:
            The names that are not there.

        Raises:
            RemoteError: if the file system cannot be reached; finished copies are kept.
        """
        wanted = sorted(set(names))
        with self.reaching(), ThreadPoolExecutor(THREADS) as pool:
            self.files.invalidate_cache()
            found = dict(zip(wanted, pool.map(self._versions, wanted), strict=True))
            versions = {name: version for part in found.values() for name, version in part.items()}
            todo = [name for name, version in versions.items() if self._is_wanted(name, version)]
            self._run(pool, lambda name: self._get(name, versions[name]), todo, f"from {redact(self.url)}")
        return [name for name, part in found.items() if not part]

    def _run(self, pool: ThreadPoolExecutor, work: Callable[[str], None], names: list[str], title: str) -> None:
        """Do something with each name, with a bar where a person looks."""
        from tqdm import tqdm  # noqa: PLC0415

        tasks = [pool.submit(work, name) for name in names]
        try:
            for task in tqdm(tasks, desc=title, unit="file", disable=None if tasks else True):
                task.result()
        finally:
            for task in tasks:
                task.cancel()

    def _versions(self, name: str) -> dict[str, list[Any]]:
        """Versions by name: of a file, or of all files in a folder; none if there is nothing."""
        try:
            info = self.files.info(self._there(name))
        except FileNotFoundError:
            return {}
        if info["type"] != "directory":
            return {name: _version(info)}
        paths = self.files.find(self._there(name))
        return {path[len(self.root) + 1 :]: _version(self.files.info(path)) for path in paths}

    def _is_wanted(self, name: str, version: list[Any]) -> bool:
        return self.state.get(name) != [version, _stamp(self.local / name)]

    def _get(self, name: str, version: list[Any]) -> None:
        path = self.local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            self.files.get_file(self._there(name), str(temporary))
            if version[0] is not None and temporary.stat().st_size != version[0]:
                raise RemoteError(
                    f"{redact(self.url)}/{name} arrived with {temporary.stat().st_size} of {version[0]} bytes"
                )
        self.state[name] = [version, _stamp(path)]

    def _save(self) -> None:
        self.local.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.local / STATE) as temporary:
            temporary.write_text(json.dumps(dict(self.state)))


class Mirror(Copy):
    """A folder here that programs write to, and its copy elsewhere.

    Args:
        url: of the folder.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, "outputs")
        self.local.mkdir(parents=True, exist_ok=True)
        self.seen = set(self._present())

    @cached_property
    def there(self) -> set[str]:
        """Names of all files that were there when this was asked for the first time."""
        with self.reaching():
            self.files.invalidate_cache()
            try:
                paths = self.files.find(self.root)
            except FileNotFoundError:
                return set()
            return {path[len(self.root) + 1 :] for path in paths}

    def note_present(self) -> None:
        """Take note of the files that are here now."""
        self.seen |= set(self._present())

    def _present(self) -> dict[str, list[int]]:
        """Stamps of all files here by name, but hidden ones, which are not finished, apart from lists of own files."""
        names = (f.relative_to(self.local).as_posix() for f in self.local.rglob("*") if f.is_file())
        stamps = {name: _stamp(self.local / name) for name in names if is_record(name) or "/." not in f"/{name}"}
        return {name: stamp for name, stamp in stamps.items() if stamp is not None}

    def _is_wanted(self, name: str, version: list[Any]) -> bool:
        """As for data, but that files which were not sent yet stay."""
        stamp = _stamp(self.local / name)
        known_version, known_stamp = self.state.get(name, [None, None])
        if stamp is None or stamp == known_stamp:
            return stamp is None or version != known_version
        if version == known_version or self._is_same(name):
            return False
        raise CellBundleError(
            f"{self.local / name} was never sent to {redact(self.url)}, where another {name} is now; "
            "keep the one that you want and remove the other"
        )

    def _is_same(self, name: str) -> bool:
        """Whether a file here and there has the same content, where the state does not say so."""
        path, target = self.local / name, self._there(name)
        size = self.files.info(target)["size"]
        same: bool = size == path.stat().st_size and self.files.cat_file(target) == path.read_bytes()
        return same

    def pending(self) -> list[str]:
        """Names of the files that are not there as they are here."""
        present = self._present()
        return sorted(name for name, stamp in present.items() if self.state.get(name, [None] * 2)[1] != stamp)

    def push(self) -> None:
        """Send the files that changed, and remove there what was removed here since this object was made.

        Raises:
            RemoteError: at the first file that cannot be sent.
        """
        pending, present = self.pending(), set(self._present())
        gone = [name for name in self.seen - present if name in self.state]
        self.seen |= present
        if not pending and not gone:
            return
        with self.reaching():
            for name in pending:
                self._put(name)
            for name in gone:
                if self.files.exists(f"{self.root}/{name}"):
                    self.files.rm_file(f"{self.root}/{name}")
                del self.state[name]

    def _put(self, name: str) -> None:
        path, target = self.local / name, f"{self.root}/{name}"
        stamp = _stamp(path)
        if stamp is None:  # replaced or removed at this moment; the next time sees it
            return
        self.files.makedirs(target.rpartition("/")[0], exist_ok=True)
        protocols = {self.files.protocol} if isinstance(self.files.protocol, str) else set(self.files.protocol)
        if protocols & WITH_RENAME:
            temporary = f"{target.rpartition('/')[0]}/.{path.name}.part"
            self.files.put_file(str(path), temporary)
            self.files.mv(temporary, target)
        else:
            self.files.put_file(str(path), target)
        self.files.invalidate_cache()
        self.state[name] = [_version(self.files.info(target)), stamp]


def _read_state(path: Path) -> dict[str, list[Any]]:
    """Versions and stamps; none if the file is missing or damaged: then all is copied anew."""
    try:
        state = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(state, dict):
        return {}
    return {name: pair for name, pair in state.items() if isinstance(pair, list) and len(pair) == 2}


def _version(info: Mapping[str, Any]) -> list[Any]:
    """Size of a file elsewhere, and what changes with its content; as JSON holds it."""
    return [info.get("size"), next((str(info[key]) for key in VERSION_KEYS if info.get(key) is not None), None)]


def _stamp(path: Path) -> list[int] | None:
    """Size and time of a file here; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns]
