"""``run.yaml`` beside weights: the bundle that they are of, and how it was configured when they were trained.

Whatever uses weights takes network, normaliser, scale, tiles, decoder and classes from there. The file may come from
anywhere, so only plain values are taken from it, and expressions and classes that the bundle's own files have as well.

At import this module needs the standard library only: the build of a wheel and ``cellbundle list`` import it.
"""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

logger = logging.getLogger(__name__)

RECORD = "run.yaml"
BEST, FINAL, LATEST = "model.pt", "model_final.pt", "latest.pt"  # checkpoints of a training
PREVIOUS = "previous.pt"  # the latest.pt before, in case that one is damaged
OWN_WEIGHTS = f"models/{BEST}"  # of a bundle
FORM = 1
ROOTS = ("network_def", "normaliser", "decoder", "inferer", "scale", "class_names", "channels")
# Belongs to a command and not to weights: expressions that refer to these are left to the bundle.
OF_COMMAND = {
    "bundle_root", "device", "device_name", "figures", "image", "mode", "phase_now", "pretrained_ckpt_name",
    "pretrained_ckpt_path", "resume",
}  # fmt: skip
VENDORED = "scripts."  # before the name of a core that is part of a bundle
FURTHER_CLASSES = re.compile(
    r"(scripts\.)?cellbundle\.(transforms\.(\w+\.)?(Normalise|Decode)\w+|inference\.tiling\.TiledInferer)"
)
OF_DATA = {"basedir", "data_list_files", "datalist", "dataset_dir", "quick"}  # no settings either, but evaluated
PLAIN_KEY = re.compile(r"[A-Za-z0-9]\w*")
REFERENCE = re.compile(r"@(\w+)")
NONE = "$None"  # MONAI drops arguments that are None
METADATA = "configs/metadata.json"

Record = dict[str, Any]


def bundle_name(root: Path) -> str:
    """Name of a bundle in its metadata, wherever its folder lies; that of the folder if they cannot be read."""
    try:
        return str(json.loads((root / METADATA).read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return root.name


def find_settings(parser: "ConfigParser") -> dict[str, Any]:
    """What inference must know of a training: items of its configuration with all that they refer to.

    Expressions that give plain values are evaluated, as they may depend on the data; references stay.

    Args:
        parser: of the training.

    Returns:
        Content by top-level id, as a configuration.
    """
    config: Mapping[str, Any] = parser.get()
    found: dict[str, Any] = {}
    waiting = [name for name in ROOTS if name in config]
    while waiting:
        name = waiting.pop(0)
        if name in found or name not in config or name in OF_COMMAND:
            continue
        content = _settled(parser, name, config[name], waiting)
        if content is not _DROPPED:
            found[name] = content
    return found


_DROPPED = object()


def _settled(parser: "ConfigParser", name: str, raw: Any, waiting: list[str]) -> Any:
    """Content of an id without what belongs to the command; ids that it refers to are added to ``waiting``."""
    if isinstance(raw, Mapping):
        parts = {key: _settled(parser, f"{name}#{key}", value, waiting) for key, value in raw.items()}
        return {key: value for key, value in parts.items() if value is not _DROPPED}
    if isinstance(raw, list):
        parts_ = [_settled(parser, f"{name}#{number}", value, waiting) for number, value in enumerate(raw)]
        return [value for value in parts_ if value is not _DROPPED]
    if not isinstance(raw, str) or raw[:1] not in ("$", "@"):
        return raw
    names = REFERENCE.findall(raw)
    if OF_COMMAND & set(names):
        return _DROPPED
    if raw.startswith("$"):
        value = parser.get_parsed_content(name)
        if _is_plain(value):
            return NONE if value is None else value
    waiting += names
    return raw


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    return type(value) in (bool, int, float, str, type(None))  # NumPy's numbers cannot be written


def write_record(folder: Path, record: Record) -> None:
    """Write ``run.yaml`` of a folder of weights."""
    import yaml  # noqa: PLC0415

    from .io import atomic_path  # noqa: PLC0415

    with atomic_path(folder / RECORD) as temporary:
        temporary.write_text(yaml.safe_dump(record, sort_keys=False, width=120), encoding="utf-8")


def read_record(folder: Path) -> Record | None:
    """Read ``run.yaml`` of a folder; None if there is none.

    Raises:
        CheckpointError: if it is damaged.
    """
    import yaml  # noqa: PLC0415

    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
        sound = record["form"] == FORM and isinstance(record["bundle"], str) and isinstance(record["settings"], dict)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        sound = False
    if not sound:
        raise CheckpointError(f"{path} is damaged, or of another version of cellbundle; restore it, or remove it")
    return dict(record)


def settings_of(weights: str | Path, root: Path) -> dict[str, Any] | None:
    """Settings in the ``run.yaml`` beside some weights.

    Args:
        weights: a checkpoint.
        root: folder of the bundle that is to use it.

    Returns:
        Content by id; None if there is no ``run.yaml``, which is logged unless the weights are the bundle's own.

    Raises:
        CheckpointError: if the weights are another bundle's, or the file is damaged or has code of its own.
    """
    record = read_record(Path(weights).parent)
    if record is None:
        if Path(weights).resolve() != (root / OWN_WEIGHTS).resolve():
            logger.info("%s has no %s beside it: used as the bundle is configured", weights, RECORD)
        return None
    name = bundle_name(root)
    if record["bundle"] != name:
        raise CheckpointError(f"{weights}: these are {record['bundle']}'s weights, not {name}'s; choose that bundle")
    settings = _named_as_in(root, record["settings"])
    own = _code_of_bundle(root)
    allowed = _ids_of_settings(own)
    foreign = sorted(settings.keys() - allowed)
    for item in settings.keys() & allowed:
        known = own[item] | {f"@{other}" for other in allowed} | {NONE}
        foreign += sorted(text for text in _code(settings[item]) - known if not FURTHER_CLASSES.fullmatch(text))
    if foreign:
        raise CheckpointError(
            f"{Path(weights).parent / RECORD} holds {foreign[0]!r}, which is neither a setting nor code of {name}; "
            "train with the bundle's own classes, or put the class into the bundle"
        )
    return dict(settings)


def _named_as_in(root: Path, content: Any) -> Any:
    """Settings with the classes of the core as a bundle names them: a packaged one has a core of its own."""
    if isinstance(content, list):
        return [_named_as_in(root, value) for value in content]
    if not isinstance(content, Mapping):
        return content
    named = {key: _named_as_in(root, value) for key, value in content.items()}
    target = str(named.get("_target_", "")).removeprefix(VENDORED)
    if target.startswith("cellbundle."):
        named["_target_"] = (VENDORED if (root / "scripts" / "cellbundle").is_dir() else "") + target
    return named


def apply_settings(parser: "ConfigParser", settings: Mapping[str, Any]) -> None:
    """Put settings into a configuration; arguments of a class that they do not name stay as they are."""
    config = parser.get()
    for name, content in settings.items():
        own = config.get(name)
        same = isinstance(own, dict) and isinstance(content, dict) and own.get("_target_") == content.get("_target_")
        parser[name] = {**own, **content} if same and own is not None else content


def id_of(key: str) -> str:
    """Id of a key of a file or the command line, with ``#`` between levels and without the mark for merging."""
    return key.removeprefix("+").replace("::", "#")


def top_id(key: str) -> str:
    """The first part of ``id_of``."""
    return id_of(key).split("#")[0]


def _code(content: Any) -> set[str]:
    """Expressions, references, classes and special keys of a configuration."""
    if isinstance(content, Mapping):
        special = {str(key) for key in content if key != "_target_" and not PLAIN_KEY.fullmatch(str(key))}
        target = {str(content["_target_"])} if "_target_" in content else set()
        return special.union(target, *map(_code, content.values()))
    if isinstance(content, list):
        return set().union(*map(_code, content))
    is_code = isinstance(content, str) and content[:1] in ("$", "%", "@")
    return {content.replace("::", "#")} if is_code else set()  # MONAI writes the one for the other


def _ids_of_settings(own: Mapping[str, set[str]]) -> set[str]:
    """Ids that settings may have: those that inference needs, and what the bundle's own files refer to from there."""
    found: set[str] = set()
    waiting = [name for name in ROOTS if name in own]
    while waiting:
        name = waiting.pop()
        if name not in found and name in own and name not in OF_COMMAND | OF_DATA:
            found.add(name)
            waiting += (other for text in own[name] for other in REFERENCE.findall(text))
    return found


def _code_of_bundle(root: Path) -> dict[str, set[str]]:
    """The same of a bundle's files, by top-level id."""
    from monai.bundle import ConfigParser  # noqa: PLC0415

    found: dict[str, set[str]] = {}
    for path in (root / "configs").iterdir():
        if path.suffix in {".json", ".yaml"}:
            for name, content in ConfigParser.load_config_file(path).items():
                found.setdefault(name, set()).update(_code(content))
    return found
