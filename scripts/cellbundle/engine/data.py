"""Data sets, samplers and loaders. Augmentation is a function of (seed, epoch, position, item), nothing else.

A resumed run therefore equals one that never stopped, bit for bit and for any number of workers.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, list_data_collate, set_track_meta
from monai.transforms import Compose
from torch.utils.data import DistributedSampler

from ..datalists.datalist import load_datalists, read_class_names
from ..distributed import rank, world_size
from ..errors import CellBundleError, ConfigError, DatalistError, original_errors
from ..flags import as_bool
from ..io import IMAGE_SUFFIXES
from ..io.folder import is_image, scan_folder
from .preemption import survive_signals

logger = logging.getLogger(__name__)

Key = tuple[int, int, int]  # epoch, position in the epoch, item
PADDING = -1  # number of no image


def find_entries(
    specs: Sequence[dict[str, Any]] | str,
    split: str,
    fold: int = 0,
    limit: int | None = None,
    require_labels: bool = True,
    input_dir: str | None = None,
) -> list[dict[str, Any]]:
    """Entries of one split of some data lists, or the images of a folder.

    Args:
        specs: one ``{"datalist", "basedir"}`` each, perhaps with a ``weight``; or a YAML or JSON file that holds such
            a list.
        split: training, validation or testing.
        fold: number of the validation fold.
        limit: keep only the first so many.
        require_labels: whether every entry needs a label; without, missing files are found when they are read.
        input_dir: a folder of images to use instead of data lists.

    Raises:
        DatalistError: if nothing is found or a list is not valid.
    """
    if input_dir is not None:
        if not Path(input_dir).is_dir():
            raise DatalistError(f"input_dir is {input_dir}, which is no folder; give a folder of images")
        unreadable: list[tuple[Path, str]] = []
        found = scan_folder(Path(input_dir), recursive=False, unreadable=unreadable)
        paths = sorted(path for path, _ in found if is_image(path))
        if unreadable:
            raise DatalistError(f"{unreadable[0][1]}; check its permissions")
        if not paths:
            raise DatalistError(
                f"{input_dir} has no images; expected files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        return [{"image": str(path)} for path in paths][:limit]
    lists: Any = ConfigParser.load_config_file(specs) if isinstance(specs, str) else specs
    if not lists or any(not spec.get("datalist") for spec in lists):
        raise DatalistError(
            "no data list is given; use --datalist FILE --basedir DIR (or --input_dir DIR with --mode infer)"
        )
    return load_datalists(lists, split, fold, check_files=require_labels, require_labels=require_labels)[:limit]


def find_class_names(specs: Sequence[dict[str, Any]] | str) -> list[str]:
    """Names of the classes 1..K that some data lists agree on; none where no list names any or none is given.

    Args:
        specs: as for ``find_entries``.

    Raises:
        DatalistError: if two lists name different classes, or a file cannot be read.
    """
    lists: Any = ConfigParser.load_config_file(specs) if isinstance(specs, str) else specs
    found = {tuple(read_class_names(spec["datalist"])) for spec in lists or () if spec.get("datalist")}
    if len(found) > 1:
        names = "; ".join(", ".join(one) or "none" for one in sorted(found))
        raise DatalistError(f"the data lists name different classes ({names}); make them agree, or give class_names")
    return list(found.pop()) if found else []


def sampling_weights(entries: Sequence[dict[str, Any]], group_balance: float = 0.0) -> list[float]:
    """Weights that let every data list count by its own weight, whatever its length.

    Args:
        entries: of ``find_entries``; an entry without ``group`` is a group of its own.
        group_balance: within a list a group of n images counts as n ** (1 - group_balance) of them, so that rare
            acquisitions are seen: 0 takes all images alike, 1 all groups.
    """
    keys = [(entry.get("datalist_id", 0), entry.get("group", entry.get("image"))) for entry in entries]
    sizes = Counter(keys)
    shares = np.array([sizes[key] ** -group_balance for key in keys])
    lists = np.array([key[0] for key in keys])
    means = {number: shares[lists == number].mean() for number in set(lists.tolist())}
    return [
        entry.get("datalist_weight", 1.0) * share / means[key[0]]
        for entry, share, key in zip(entries, shares.tolist(), keys, strict=True)
    ]


class SeededDataset(CacheDataset):
    """A cached data set whose random transforms are seeded by the key of the item.

    Args:
        data: entries; MONAI Label replaces them.
        transform: transforms; what precedes the first random one is cached in memory.
        seed: seed of the run.
        cache_rate: share of the items to cache; 0 reads files each time.
        variants: number of different augmentations of an item, which epochs take in turn; None for new ones each time.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Sequence[Callable] | Callable,
        seed: int = 0,
        cache_rate: float = 1.0,
        variants: int | None = None,
    ) -> None:
        self.seed, self.variants = seed, variants
        super().__init__(data, transform, cache_rate=cache_rate, num_workers=2, progress=False, copy_cache=False)

    def __getitem__(self, index: int | Key) -> Any:  # type: ignore[override]
        """Item ``index``; a key (epoch, position, item) seeds its random transforms."""
        if isinstance(index, tuple):
            key = index if self.variants is None else (index[0] % self.variants, index[2])
            seed = np.random.SeedSequence([self.seed, *key]).generate_state(1)[0]
            if isinstance(self.transform, Compose):
                self.transform.set_random_state(seed=int(seed))
            index = index[2]
        return super().__getitem__(index)


class SeededSampler(DistributedSampler):
    """Draws the items of each epoch by weight, as keys (epoch, position, item) for ``SeededDataset``.

    Every process draws the same sequence and takes every ``world_size``-th of it. It is a ``DistributedSampler``
    because those are what MONAI's engines tell the epoch.

    Args:
        dataset: its length is the number of items.
        num_samples: items of an epoch over all processes; by default the length of the data set.
        weights: one for each item; by default all alike.
        seed: seed of the run.
        replacement: False goes through shuffled passes over all items, ignoring weights.
    """

    def __init__(
        self,
        dataset: Dataset,
        num_samples: int | None = None,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        replacement: bool = True,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size(), rank=rank(), seed=seed)
        self.n_items = len(dataset)
        total = num_samples or self.n_items
        self.total_size = -(-total // world_size()) * world_size()
        self.num_samples = self.total_size // world_size()
        p = np.ones(self.n_items) if weights is None else np.asarray(weights, dtype=np.float64)
        self.probabilities = p / p.sum()
        self.replacement, self._skipped = replacement, 0

    def skip(self, n: int) -> None:
        """Leave out the first ``n`` items of this process in the next pass, which a resumed epoch has had."""
        self._skipped = n

    def __iter__(self) -> Iterator[Key]:  # type: ignore[override]
        """Keys of this process for the current epoch."""
        random = np.random.default_rng([self.seed, self.epoch])
        if self.replacement:
            items = random.choice(self.n_items, self.total_size, p=self.probabilities)
        else:
            passes = -(-self.total_size // self.n_items)
            items = np.concatenate([random.permutation(self.n_items) for _ in range(passes)])[: self.total_size]
        skipped, self._skipped = self._skipped, 0
        for position in range(self.rank, self.total_size, self.num_replicas)[skipped:]:
            yield self.epoch, position, int(items[position])


class ImageDataset(Dataset):
    """Whole images for evaluation and inference; an image that cannot be read becomes an item with an ``error``.

    Args:
        data: entries with ``image`` and perhaps ``label``.
        transform: deterministic transforms.
        survive: False raises instead.
    """

    def __init__(
        self, data: Sequence[dict[str, Any]], transform: Sequence[Callable] | Callable, survive: bool = True
    ) -> None:
        super().__init__(data, transform if callable(transform) else Compose(transform))
        self.survive = as_bool(survive)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        """Item ``index`` with its number under ``index``; for ``PADDING``, an item that says so."""
        if index == PADDING:
            return {"padding": True}
        entry = self.data[index]
        try:
            with original_errors():
                item = dict(self.transform(dict(entry)))
        except (CellBundleError, OSError) as error:
            if not self.survive:
                raise
            return {"index": index, "path": str(entry["image"]), "error": str(error)}
        return {**item, "index": index, "path": str(entry["image"])}


class EachOnceSampler(DistributedSampler):
    """Gives each item to one process, and ``PADDING`` in the place of missing ones, so that all get equally many.

    So they agree on the number of steps, and no image is computed or written twice.
    """

    def __iter__(self) -> Iterator[int]:
        """Items of this process."""
        n = len(self.dataset)  # type: ignore[arg-type]
        yield from (i if i < n else PADDING for i in range(self.rank, self.total_size, self.num_replicas))


def collate_one(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Batch of one image without a copy: tensors get a first dimension of 1, the rest goes into lists."""
    (item,) = items
    return {key: value[None] if isinstance(value, torch.Tensor) else [value] for key, value in item.items()}


def collate_crops(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Batch of what all the items have: one data list may say more of its images, such as groups, than another."""
    shared = set(items[0]).intersection(*items[1:])
    return list_data_collate([{key: item[key] for key in items[0] if key in shared} for item in items])


def training_loader(dataset: Dataset, sampler: SeededSampler, batch_size: int, num_workers: int = 0) -> DataLoader:
    """Loader of training crops; workers do without MONAI's metadata, which crops do not need and which cost time."""
    check_workers(num_workers, "num_workers")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=len(sampler) > batch_size,
        collate_fn=collate_crops,
        persistent_workers=num_workers > 0,
        worker_init_fn=_prepare_crop_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the seeds of workers are not used; without it they cost global random numbers
    )


def image_loader(dataset: ImageDataset, num_workers: int = 0) -> DataLoader:
    """Loader of whole images, one at a time; under several processes each gets its share."""
    check_workers(num_workers, "image_workers")
    several = world_size() > 1
    sampler = EachOnceSampler(dataset, num_replicas=world_size(), rank=rank(), shuffle=False) if several else None
    return DataLoader(
        dataset,
        batch_size=1,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate_one,
        worker_init_fn=_prepare_worker,
    )


def check_workers(n: int, name: str) -> None:
    """Raise ``ConfigError`` unless ``n``, the option ``name``, is a number of processes."""
    if not isinstance(n, int) or n < 0:
        raise ConfigError(f"{name} is {n}, expected a number of processes, 0 or more")


def _prepare_worker(worker: int) -> None:
    del worker
    survive_signals()


def _prepare_crop_worker(worker: int) -> None:
    _prepare_worker(worker)
    set_track_meta(False)
    torch.set_num_threads(1)
