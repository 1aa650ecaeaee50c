"""Which files a batch reads, and under which names it writes."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError, ImageReadError
from ...io import find_ome_set, printable, stem
from ...io.folder import is_image, scan_folder
from ...io.label_names import image_base, is_by_product, is_label_name
from ...io.ownership import STATE

TIFF_SUFFIXES = (".tif", ".tiff")
RECORDS = Path(STATE)  # folder in that of the results by which it is known


@dataclass(frozen=True)
class Job:
    """One image of a batch.

    Attributes:
        source: the file.
        name: what people see: its path below the folder that was given, with forward slashes; unique in the batch.
        base: path of its results without suffix, relative to the output folder; unique in the batch.
        joined: other files that are read as parts of the image.
    """

    source: Path
    name: str
    base: Path
    joined: tuple[Path, ...] = ()


def find_jobs(
    inputs: Sequence[str | Path], output: str | Path, join: bool = False
) -> tuple[list[Job], list[Path], list[tuple[Path, str]]]:
    """Images among files and, recursively, in folders.

    Folders keep their sub-folders; hidden files and folders with results of this command are left out, and so are
    pictures that hold labels by their name or folder, as for ``cellbundle data prepare``. Of two images that would
    share a name, such as ``a.png`` and ``a.tif``, both get their suffix into it: ``a_png`` and ``a_tif``.

    Args:
        inputs: files and folders.
        output: folder of the results.
        join: the files of an OME-TIFF set that hold one image are one job, which has the name of the first of them.

    Returns:
        Jobs sorted by name; files that are no images by their suffix, and label files; with the reason, folders that
        cannot be read and files that are not regular ones.

    Raises:
        ConfigError: if an input does not exist, or is the output folder.
    """
    output = Path(output).resolve()
    found: dict[Path, Path] = {}  # source -> relative path
    seen: set[Path] = set()
    ignored: list[Path] = []
    unreadable: list[tuple[Path, str]] = []
    for given in map(Path, inputs):
        if not given.exists():
            raise ConfigError(f"{given} does not exist; give image files or folders of images")
        if given.resolve() == output:
            raise ConfigError(f"{given} is the input and the output; give another --output")
        is_folder = given.is_dir() and not is_image(given)
        pairs = list(scan_folder(given, skip=(output,), unreadable=unreadable)) if is_folder else [(given, given.name)]
        bases = {image_base(relative) for source, relative in pairs if is_image(source)}
        for source, relative in pairs:
            if not is_image(source) or (is_folder and (is_label_name(relative, bases) or is_by_product(relative))):
                ignored.append(source)
            elif not (source.is_file() or source.is_dir()):  # opening a FIFO would wait for ever
                unreadable.append((source, f"{source}: {_kind(source)}; give an image file"))
            elif source.resolve() not in seen:
                seen.add(source.resolve())
                found[source] = Path(relative)
    joined = _join(found) if join else {}
    return _named(found, joined), ignored, unreadable


def _join(found: dict[Path, Path]) -> dict[Path, tuple[Path, ...]]:
    """Keep the first file of each OME-TIFF set in ``found`` and return its other files."""
    joined: dict[Path, tuple[Path, ...]] = {}
    sources = {source.resolve(): source for source in found}
    done: set[Path] = set()
    for real, source in sources.items():
        if real in done or source.suffix.lower() not in TIFF_SUFFIXES:
            continue
        try:
            files = find_ome_set(source)
        except ImageReadError:  # it is raised again when the image is read
            continue
        done.update(file.resolve() for file in files)
        if files:
            relative = found[source].with_name(files[0].name)
            for file in files:
                found.pop(sources.get(file.resolve(), file), None)
            found[files[0]], joined[files[0]] = relative, files[1:]
    return joined


def _kind(path: Path) -> str:
    """What is wrong with a path that is neither a regular file nor a folder."""
    return "is a FIFO, a device or a socket" if path.exists() else "is a link to a file that does not exist"


def _named(found: dict[Path, Path], joined: Mapping[Path, tuple[Path, ...]]) -> list[Job]:
    """Give every image a base of its own; case does not tell files apart everywhere, so it does not here."""
    order = sorted(found, key=lambda source: (found[source].as_posix(), str(source)))
    sharing = defaultdict(list)
    for source in order:
        sharing[_key(_base(found[source]))].append(source)
    alone = {sources[0] for sources in sharing.values() if len(sources) == 1}
    taken = {_key(_base(found[source])) for source in alone}
    names = Counter(found[source].as_posix() for source in order)
    jobs = []
    for source in order:
        base = _base(found[source])
        if source not in alone:
            base = base.with_name(f"{base.name}_{source.suffix[1:]}")
            number, plain = 2, base
            while _key(base) in taken:
                base, number = plain.with_name(f"{plain.name}_{number}"), number + 1
            taken.add(_key(base))
        name = found[source].as_posix()
        shown = printable(name if names[name] == 1 else source.as_posix())
        jobs.append(Job(source, shown, base, joined.get(source, ())))
    return jobs


def _base(relative: Path) -> Path:
    return relative.with_name(stem(relative))


def _key(base: Path) -> str:
    return base.as_posix().casefold()
