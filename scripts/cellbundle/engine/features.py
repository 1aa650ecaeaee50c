"""Features of a frozen backbone, computed once for each image and kept in memory or in files."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..errors import ConfigError
from .checkpoint import save_atomically

logger = logging.getLogger(__name__)

Encoder = Callable[[torch.Tensor], list[torch.Tensor]]
MEMORY = "memory"


class FeatureCache:
    """Keeps what an encoder answered, by the content of the image.

    As the content is the key, nothing goes stale: another crop or another intensity is another image. Features have the
    dtype in which they were computed, so training with a cache equals training without.

    Args:
        folder: where files go, for more features than fit into memory; None keeps them in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.kept: dict[str, list[torch.Tensor]] = {}
        self.hits = self.misses = 0

    @torch.compiler.disable
    def __call__(self, images: torch.Tensor, encode: Encoder) -> list[torch.Tensor]:
        """Features of a batch, of which only unknown images are encoded.

        Args:
            images: (N, C, H, W).
            encode: maps (n, C, H, W) to tensors (n, ...).

        Returns:
            What ``encode`` would return, (N, ...) each.
        """
        keys = [hashlib.sha256(image.numpy()).hexdigest() for image in images.detach().cpu().contiguous()]
        found = {key: self._get(key) for key in keys}
        unknown = [i for i, key in enumerate(keys) if found[key] is None and keys.index(key) == i]
        self.hits, self.misses = self.hits + len(keys) - len(unknown), self.misses + len(unknown)
        if unknown:
            answer = [level.detach() for level in encode(images[unknown])]
            for position, index in enumerate(unknown):
                found[keys[index]] = features = [level[position] for level in answer]
                self._put(keys[index], [level.cpu() for level in features])
        rows = [found[key] or [] for key in keys]
        return [torch.stack([level.to(images.device) for level in levels]) for levels in zip(*rows, strict=True)]

    def _get(self, key: str) -> list[torch.Tensor] | None:
        if self.folder is None:
            return self.kept.get(key)
        try:
            found = torch.load(self.folder / f"{key}.pt", weights_only=True)
        except Exception:  # noqa: BLE001  (missing, or damaged in any way: computed again)
            return None
        sound = isinstance(found, list) and all(isinstance(level, torch.Tensor) for level in found)
        return found if sound else None

    def _put(self, key: str, features: list[torch.Tensor]) -> None:
        features = [level.clone() for level in features]  # a view would keep the whole batch
        if self.folder is None:
            self.kept[key] = features
        else:
            save_atomically(features, self.folder / f"{key}.pt")


def make_feature_cache(
    where: str | None, backbone: nn.Module, variants: int | None, precision: str = ""
) -> FeatureCache | None:
    """Cache for the features of a frozen backbone.

    Args:
        where: ``memory``, a folder, or None for no cache.
        backbone: files go to a folder below that is named after its weights.
        variants: number of different augmentations of an image; features of ever new ones would never be used again.
        precision: in which features are computed; another one has a folder of its own.

    Raises:
        ConfigError: if something learns in the backbone, or the number of augmentations has no limit.
    """
    if where is None:
        return None
    if any(p.requires_grad for p in backbone.parameters()):
        raise ConfigError("feature_cache needs a frozen backbone; leave it out, or set freeze_backbone to True")
    if variants is None:
        raise ConfigError(
            "feature_cache needs a limited number of augmentations of each image; give --augmentation_variants 8, or "
            "leave feature_cache out"
        )
    if where == MEMORY:
        return FeatureCache()
    digest = hashlib.sha256(precision.encode())
    for key, value in backbone.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy())
    folder = Path(where) / digest.hexdigest()[:16]
    logger.info("features of the backbone are kept in %s", folder)
    return FeatureCache(folder)
