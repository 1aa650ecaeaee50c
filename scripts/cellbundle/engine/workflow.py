"""The workflow class that every bundle inherits: one command line for training, evaluation and inference."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import ensure_tuple

from ..bundles import make_importable
from ..errors import CellBundleError, ConfigError, original_errors
from ..evaluation import format_report, write_evaluation
from ..io import atomic_path
from . import distributed
from .checkpoint import BEST, TrainingCheckpoint, check_overwrite
from .data import find_entries
from .evaluation import build_evaluation
from .handlers import Handler, History, find_handler
from .network import load_weights
from .overrides import check_overrides, convert_switches
from .roots import Roots
from .tracking import Tracker, TrackingHandler, end_status, forget_run, log_results, start_run

logger = logging.getLogger(__name__)

MODES = {"train": "train", "eval": "infer", "infer": "infer"}
TYPES = {
    "train": "train",
    "training": "train",
    "infer": "infer",
    "inference": "infer",
    "eval": "eval",
    "evaluation": "eval",
}


class CellWorkflow(ConfigWorkflow):
    """A MONAI workflow in three modes over one configuration.

    Args:
        config_file: configuration, or several that are merged in order; the bundle is the folder above the first one's.
        mode: ``train``, ``eval`` (scores of a labelled split) or ``infer`` (label maps of images); by default what
            ``workflow_type`` or the configuration says.
        workflow_type: MONAI's name for the mode.
        meta_file: see ``monai.bundle.ConfigWorkflow``.
        logging_file: see ``monai.bundle.ConfigWorkflow``.
        **override: configuration items by id.

    Raises:
        ConfigError: for an unknown mode or a misspelt override.
    """

    def __init__(
        self,
        config_file: str | Sequence[str],
        mode: str | None = None,
        workflow_type: str | None = None,
        meta_file: str | Sequence[str] | None = None,
        logging_file: str | bool | None = None,
        **override: Any,
    ) -> None:
        root = Path(ensure_tuple(config_file)[0]).resolve().parent.parent
        make_importable(root)
        config = ConfigParser.load_config_files(config_file)
        check_overrides(config, override)
        override = convert_switches(config, override)
        mode = self._find_mode(mode, workflow_type, config)
        override = {"bundle_root": str(root), **override, "mode": mode}
        super().__init__(
            config_file=config_file,
            meta_file=meta_file,
            logging_file=logging_file,
            workflow_type=MODES[mode],
            **override,
        )
        self.mode = mode
        self.tracker, self.trained_epochs = Tracker(None), 0
        self.roots = Roots()

    @staticmethod
    def _find_mode(mode: str | None, workflow_type: str | None, config: dict[str, Any]) -> str:
        wanted = mode or TYPES.get(str(workflow_type).lower()) or config.get("mode", "train")
        if wanted not in MODES:
            raise ConfigError(f"mode is {wanted!r}; choose one of {', '.join(MODES)}")
        return str(wanted)

    def initialize(self) -> Any:
        """Join the other processes, if any, and parse the configuration."""
        distributed.initialise(self.parser.get("device_name", "auto"))
        self.roots.localise(self.parser, self.mode)
        return super().initialize()

    def run(self) -> Any:
        """Train, evaluate or infer."""
        with original_errors(), self.roots:
            if self.mode == "train":
                self._check_overwrite()
            if self.parser.get("tracker"):
                self.tracker = self.content("tracker")
            with end_status(self.tracker):
                return {"train": self._train, "eval": self._evaluate, "infer": self._infer}[self.mode]()

    def _check_overwrite(self) -> None:
        ids = {"resume": "resume", "overwrite": "overwrite", "phase": "phase_now"}
        options = {name: self.content(key) for name, key in ids.items() if key in self.parser}
        folder = self.content("ckpt_path")
        check_overwrite(folder, **options, shown=self.roots.shown(folder))

    def finalize(self) -> Any:
        """Run the configuration's ``finalize`` and leave the process group."""
        result = super().finalize()
        distributed.finalise()
        return result

    def content(self, name: str) -> Any:
        """Parsed content of a configuration id."""
        return self.parser.get_parsed_content(name)

    def handler(self, kind: type[Handler]) -> Handler:
        """Return the trainer's handler of a class; raises ``ConfigError`` if there is none."""
        found = find_handler(self.trainer, kind)
        if found is None:
            raise ConfigError(f"train#handlers has no {kind.__name__}, which a training needs; add it")
        return found

    def _train(self) -> None:
        self._fit()
        if self.content("final_test"):
            self._final_test()

    def _fit(self) -> None:
        trainer = self.trainer
        files = self._track()
        self.trained_epochs = trainer.state.epoch
        if trainer.state.epoch >= trainer.state.max_epochs:
            logger.info(
                "epoch %d of %d is done already; give a larger max_epochs",
                trainer.state.epoch,
                trainer.state.max_epochs,
            )
            return
        try:
            trainer.run()
        finally:
            self.trained_epochs = trainer.state.epoch
            files.log_files()

    def _track(self) -> TrackingHandler:
        """Open the run, or the one that ``latest.pt`` belongs to, and log the training to it."""
        checkpoint = self.handler(TrainingCheckpoint)
        if not self.tracker.is_on and distributed.rank() == 0 and not checkpoint.resume:
            forget_run(checkpoint.folder)
        start_run(self.tracker, self.parser, self.mode, checkpoint.tracked)
        checkpoint.tracker = self.tracker
        handler = TrackingHandler(self.tracker, self.handler(History))
        if self.tracker.is_on:
            handler.attach(self.trainer)
        return handler

    def _final_test(self) -> None:
        """Scores of the best weights on the testing entries of each data list, if there are any."""
        try:
            find_entries(self.content("data_list_files"), "testing")
        except CellBundleError as error:
            logger.info("no final test: %s", error)
            return
        distributed.barrier()
        load_weights(self.content("network_def"), Path(self.content("ckpt_path")) / BEST)
        self._evaluate()

    def _evaluate(self) -> None:
        evaluator = self.content("evaluator")
        start_run(self.tracker, self.parser, self.mode)
        evaluator.run()
        self._raise_failures()
        evaluation = build_evaluation(self.content("key_metric_fn"), self.content("dataset").data)
        if distributed.rank() == 0:
            folder = Path(self.content("output_dir"))
            title = f"{Path(self.content('bundle_root')).name}: {self.content('split')} images"
            write_evaluation(evaluation, folder, title=title)
            logger.info(
                "scores of single images in %s\n%s", folder / "report.html", format_report(evaluation.summaries)
            )
            log_results(self.tracker, folder, self.content("split"), self.trained_epochs)

    def _infer(self) -> None:
        evaluator = self.content("evaluator")
        start_run(self.tracker, self.parser, self.mode)
        evaluator.run()
        self._raise_failures()

    def _raise_failures(self) -> None:
        """Write ``failures.csv`` and raise if an image could not be processed, after all others were."""
        failures = sorted({f for part in distributed.gather(self.content("eval_step").failures) for f in part})
        folder = Path(self.content("output_dir"))
        counts = {"images/all": len(self.content("dataset")), "images/failed": len(failures)}
        self.tracker.log(counts, self.trained_epochs)
        if distributed.rank() == 0:
            if failures:
                folder.mkdir(parents=True, exist_ok=True)
                with atomic_path(folder / "failures.csv") as temporary, temporary.open("w", newline="") as file:
                    csv.writer(file).writerows([("image", "reason"), *failures])
            else:
                (folder / "failures.csv").unlink(missing_ok=True)
        if failures:
            raise CellBundleError(
                f"{len(failures)} of {len(self.content('dataset'))} images failed, the first: {failures[0][1]}; "
                f"all others are done, see {folder / 'failures.csv'}"
            )
