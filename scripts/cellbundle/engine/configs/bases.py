"""Configuration files that name base files and write only what differs from them.

``bases: [flows, augmentation]`` names files of this folder, or paths relative to the file. They are merged as MONAI
merges the files of a ``config_file`` list, in which only ids such as ``train::trainer::max_epochs`` reach inside a
block.
"""

import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv
from monai.utils import ensure_tuple

from ...errors import ConfigError
from ...record import id_of
from ..overrides import SPECIAL_KEYS, config_ids, is_known, lookup, parameters, takes_any
from .handlers import inline_handlers

FOLDER = Path(__file__).parent
HYPER_PARAMETERS = "hyper_parameters.yaml"
BASES = "bases"
SUFFIXES = {".json", ".yaml", ".yml"}
OVERLAYS = {"inference", "monai_label", "multi_gpu", "tensorrt"}  # files of this folder that are no bases
CHANGES = ("inference", "tensorrt")  # what the generated configurations have instead
KEY_PART = re.compile(r"[^\s:#+@$]+")
REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
ROOTS = {"initialize", "run", "finalize", "train", "validate", "network_def", *CHANGES}  # MONAI and we look for them


def config_files(files: str | Path | Sequence[str | Path]) -> list[Path]:
    """Files of a configuration with all their bases, in the order in which they are merged, each once.

    Args:
        files: one file or several, as for ``--config_file``.

    Raises:
        ConfigError: for a base that does not exist, or is its own base; the message names the file.
    """
    found: list[Path] = []
    for file in ensure_tuple(files):
        _add(Path(file), found, ())
    return found


def own_file(files: str | Path | Sequence[str | Path]) -> Path:
    """The configuration file that is a bundle's own: its folder is that of the bundle's configurations.

    Args:
        files: as for ``config_files``. The own file is called ``hyper_parameters.yaml``; it is the first one without.
    """
    named = [path for path in config_files(files) if path.name == HYPER_PARAMETERS]
    return named[0] if named else Path(ensure_tuple(files)[0])


def base_files() -> dict[str, Path]:
    """Base files of the core by name, without those that are put on a configuration to generate another one."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml")) if path.stem not in OVERLAYS}


def _add(file: Path, found: list[Path], users: tuple[Path, ...]) -> None:
    """Append the bases of a file and the file itself to ``found``; ``users`` are the files that led to it."""
    if file.resolve() in [user.resolve() for user in users]:
        circle = " -> ".join(path.name for path in (*users, file))
        raise ConfigError(f"{users[-1]}: {BASES} makes a circle ({circle}); remove {file.name} from it")
    bases = read(file).get(BASES, [])
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{file}: {BASES} is {bases!r}, expected the name of a base or a list of names")
    for name in names:
        _add(_find_base(file, name), found, (*users, file))
    if file.resolve() not in [other.resolve() for other in found]:
        found.append(file)


def _find_base(file: Path, name: str) -> Path:
    """Path of a base that a file names."""
    known = base_files()
    if name in known:
        return known[name]
    path = file.parent / name
    if path.suffix in SUFFIXES and path.is_file():
        return path
    beside = [other.name for other in sorted(file.parent.glob(f"{name or '?'}.*")) if other.suffix in SUFFIXES]
    near = get_close_matches(name, known, n=1) + beside
    hint = f"did you mean {' or '.join(near)}? Else" if near else ""
    raise ConfigError(
        f"{file}: {BASES} has {name!r}, which does not exist; {hint}{' ' if hint else ''}choose some of "
        f"{', '.join(known)}, or a path relative to the file"
    )


def read(file: Path) -> dict[str, Any]:
    """Read one configuration file as it is.

    Raises:
        ConfigError: if it is missing, damaged or not a mapping.
    """
    if not file.is_file():
        raise ConfigError(f"there is no configuration file {file}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="(?i)duplicate key")
            content = ConfigParser.load_config_file(file)
    except (ValueError, UserWarning, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if content is None:
        raise ConfigError(f"{file} is empty; write options such as learning_rate: 0.001, or leave the file out")
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a mapping of ids to values, got {type(content).__name__}")
    for key in content:
        if not isinstance(key, str) or not all(KEY_PART.fullmatch(part) for part in id_of(key).split("#")):
            raise ConfigError(
                f"{file}: the key {key!r} is not an id such as learning_rate or train::trainer::max_epochs"
            )
    return content


def load_config(files: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """Merge configuration files with their bases, and check the keys of all but the first.

    The result has no ``bases``. Classes of a bundle are only found if its package ``scripts`` is importable.

    Raises:
        ConfigError: for a base that does not exist, a key that reaches nothing, or a block that would remove values of
            a base without naming them; the message names file and key.
    """
    merged = ConfigParser({})
    new: dict[str, Path] = {}
    used: set[str] = set()
    for file in config_files(files):
        config: dict[str, Any] = merged.get()
        content = {key: value for key, value in read(file).items() if key != BASES}
        is_first = not config
        for key, value in content.items():
            _check_key(config, file, key, value)
            new |= {} if is_first else {name: file for name in _ids_set(key, value) if not is_known(config, name)}
            merge_kv(merged, key, value)
        used |= {name for text in texts(merged.get()) for name in references(text)}
    config = merged.get()
    _check_references(config, new, used)
    return config


def _ids_set(key: str, value: Any) -> list[str]:
    """Ids that a key of a file sets: those inside of a mapping that is added to another one, else its own."""
    name = id_of(key)
    if name in CHANGES:  # their keys are checked when they are used
        return []
    is_added = key.startswith("+") and isinstance(value, dict)
    return [f"{name}#{part}" for part in value] if is_added else [name]


def finish_config(config: dict[str, Any]) -> None:
    """Make a merged configuration ready for MONAI's engines, in place: remove what only the merging needs."""
    for key in (BASES, *CHANGES):
        config.pop(key, None)
    inline_handlers(config)


def further_options(files: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """Content of the files that are merged after a bundle's own: it counts as options of the command line do.

    Args:
        files: as for ``config_files``.
    """
    paths = config_files(files)
    further: dict[str, Any] = {}
    for path in paths[paths.index(own_file(files)) + 1 :]:
        further |= {key: value for key, value in read(path).items() if key not in (BASES, *CHANGES)}
    return further


def _check_key(config: Mapping[str, Any], file: Path, key: str, value: Any) -> None:
    """Raise ``ConfigError`` unless a key of a file reaches something in what is merged so far."""
    name = id_of(key)
    parent, _, last = name.rpartition("#")
    holder: Any = lookup(config, parent) if parent else config
    old = lookup(config, name)
    if not (isinstance(holder, dict) or is_known(config, name)):
        raise ConfigError(f"{file}: the key {key!r} reaches nothing{_hint(config, name)}")
    if key.startswith("+") and not (isinstance(old, list | dict) and isinstance(value, type(old))):
        raise ConfigError(
            f"{file}: the key {key!r} adds a {type(value).__name__}, expected a list or mapping as in the bases, which "
            f"have {old!r}"
        )
    if "_target_" in holder and not is_known(config, name) and last not in parameters(holder) | SPECIAL_KEYS:
        target = holder["_target_"]
        raise ConfigError(f"{file}: the key {key!r}: {target} has no {last!r}{_hint(config, name)}")
    if name in CHANGES:
        if not isinstance(value, dict):
            raise ConfigError(f"{file}: the block {name!r} is {value!r}, expected a mapping of ids to values")
        return
    if isinstance(value, dict) and isinstance(old, dict) and key.startswith("+"):
        for part, inner in value.items():
            _check_key(config, file, f"{name}#{part}", inner)
    _check_type(file, key, old, value)
    _check_parameters(file, key, value)
    if isinstance(old, dict) and isinstance(value, dict) and not key.startswith("+"):
        lost = sorted(old.keys() - value.keys())
        if lost and old.keys() & value.keys() and old.get("_target_") == value.get("_target_"):
            raise ConfigError(
                f"{file}: the key {key!r} would remove {', '.join(lost)} of the bases; write only what differs, as "
                f"{name.replace('#', '::')}::NAME: VALUE"
            )


def _check_type(file: Path, key: str, old: Any, value: Any) -> None:
    """Raise ``ConfigError`` for a number that YAML takes for text, such as 1e-3."""
    is_number = isinstance(old, int | float) and not isinstance(old, bool)
    if is_number and isinstance(value, str) and NUMBER.fullmatch(value):
        raise ConfigError(f"{file}: the key {key!r} is the text {value!r}; write the number as {float(value):.1e}")


def _check_parameters(file: Path, key: str, value: Any) -> None:
    """Raise ``ConfigError`` for an argument that the class of a new block does not take."""
    if not isinstance(value, dict) or takes_any(value):
        return
    allowed = parameters(value) | SPECIAL_KEYS
    if wrong := sorted(value.keys() - allowed):
        near = get_close_matches(wrong[0], allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{file}: the key {key!r}: {value['_target_']} has no {wrong[0]!r}{hint}")


def _check_references(config: Mapping[str, Any], new: Mapping[str, Path], used: set[str]) -> None:
    """Raise ``ConfigError`` for a new key that nothing refers to: it is probably misspelt.

    Args:
        config: merged files.
        new: file of each id that was new when it was merged.
        used: ids that something refers to, also what a later file has replaced.
    """
    for name, file in new.items():
        is_used = any(f"{other}#".startswith(f"{name}#") or f"{name}#".startswith(f"{other}#") for other in used)
        if not is_used and name not in ROOTS:
            raise ConfigError(
                f"{file}: nothing refers to the key {name.replace('#', '::')!r}, and the bases do not have it"
                f"{_hint(config, name, new)}"
            )


def texts(content: Any) -> Iterator[str]:
    """Yield expressions and references of a configuration."""
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            yield from texts(item)
    elif isinstance(content, str) and content[:1] in ("$", "@"):
        yield content


def references(text: str) -> list[str]:
    """Ids that an expression refers to."""
    return [name.replace("::", "#") for name in REFERENCE.findall(text)]


def _hint(config: Mapping[str, Any], name: str, new: Collection[str] = ()) -> str:
    known = [other for other in config_ids(config) if not any(f"{other}#".startswith(f"{key}#") for key in new)]
    near = get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(other.replace('#', '::') for other in near)}?" if near else ""


@contextmanager
def quiet_about_folders() -> Iterator[None]:
    """Drop MONAI's warning that configuration files lie in several folders: base files always do."""
    log = logging.getLogger("monai.bundle.workflows")

    def is_wanted(record: logging.LogRecord) -> bool:
        """Whether a message is another one."""
        return "Not all config files are in" not in record.getMessage()

    log.addFilter(is_wanted)
    try:
        yield
    finally:
        log.removeFilter(is_wanted)
