"""Data sets on MONAI's command line.

python -m monai.bundle run_workflow "scripts.workflow.PreprocessDataset" --config_file configs/dsb2018.yaml \
    --raw_dir DIR --output_dir DIR
"""

import logging
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file, Python does not look where the package `scripts` is
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from monai.bundle import BundleWorkflow, ConfigParser

from cellbundle.addresses import is_address, redact, redact_logs
from cellbundle.datasets import prepare
from cellbundle.datasets.progress import bar
from cellbundle.engine.overrides import check_overrides
from cellbundle.errors import ConfigError, DatasetError
from cellbundle.flags import as_bool

logger = logging.getLogger(__name__)

COMMON = {
    "dataset", "raw_dir", "output_dir", "variant", "n_folds", "test_share", "seed", "workers", "download",
    "replace_foreign",
}  # fmt: skip


class PreprocessDataset(BundleWorkflow):
    """Turns a data set into images, label maps and data lists.

    Args:
        config_file: one of ``configs``; every key is an option.
        meta_file: not used; ``monai.bundle`` passes it.
        logging_file: by default ``logging.conf`` beside the configuration.
        **override: values by key.

    Raises:
        ConfigError: for a misspelt option, or without ``raw_dir`` and ``output_dir``.
    """

    def __init__(
        self, config_file: str, meta_file: str | None = None, logging_file: str | None = None, **override: Any
    ) -> None:
        default = Path(config_file).with_name("logging.conf")
        if logging_file is None and default.is_file():
            logging_file = str(default)
        super().__init__(meta_file=meta_file, logging_file=logging_file)
        redact_logs("monai.bundle.scripts", *([""] if logging_file else []))
        config = ConfigParser.load_config_file(config_file)
        check_overrides(config, override)
        self.config = config | override
        missing = [f"--{key} DIR" for key in ("raw_dir", "output_dir") if not self.config[key]]
        if missing:
            raise ConfigError(f"{config_file} does not say where the data are; add {' '.join(missing)}")
        for key in ("raw_dir", "output_dir"):
            if is_address(str(self.config[key])):
                raise ConfigError(f"{key} is {redact(str(self.config[key]))}, an address; give the path of a folder")

    def initialize(self) -> None:
        """Nothing is to be built before the run."""

    def run(self) -> None:
        """Prepare the data set.

        Raises:
            DatasetError: after all else is written, if some images could not be converted.
        """
        config = self.config
        prepared = prepare(
            config["dataset"],
            config["raw_dir"],
            config["output_dir"],
            variant=config["variant"],
            n_folds=config["n_folds"],
            test_share=config["test_share"],
            seed=config["seed"],
            workers=config["workers"],
            fetch=config["download"],
            replace_foreign=as_bool(config["replace_foreign"]),
            options={key: value for key, value in config.items() if key not in COMMON},
            progress=bar,
        )
        for sentence in (*prepared.leaks, *prepared.remarks):
            logger.warning(sentence)
        for place, images, groups, instances in prepared.counts():
            logger.info("%s: %d images, %d groups, %d instances", place, images, groups, instances)
        if prepared.problems:
            first = prepared.problems[0]
            raise DatasetError(
                f"{len(prepared.problems)} images could not be converted, such as {first.name}: {first.reason}; "
                f"all are in {prepared.folder / 'failures.csv'}, what could be is in {prepared.folder}"
            )

    def finalize(self) -> None:
        """Nothing is left open."""

    def _get_property(self, name: str, property: dict) -> Any:  # noqa: A002 - MONAI's name
        return self.config[name]

    def _set_property(self, name: str, property: dict, value: Any) -> None:  # noqa: A002 - MONAI's name
        self.config[name] = value


if __name__ == "__main__":
    import fire
    from monai.bundle import run_workflow

    fire.Fire(lambda **options: run_workflow("scripts.workflow.PreprocessDataset", **options))
