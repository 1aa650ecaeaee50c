"""The workflow class that every bundle inherits: one command line for training, evaluation and inference."""

import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any
from weakref import finalize as call_at_end

import pandas as pd
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.bundle.utils import merge_kv

from .. import distributed
from ..addresses import redact_logs
from ..bundles import make_importable, warn_of_version_conflict
from ..errors import ArrayError, CellBundleError, ConfigError, PreemptedError, original_errors, redacted_errors
from ..evaluation import REPORT_FILES, build_evaluation, format_report, write_evaluation
from ..flags import as_bool
from ..io.failures import FAILURES, write_failures
from ..io.ownership import STATE, Manifest
from ..record import BEST, METADATA, RECORD, apply_settings, read_record, settings_of, top_id
from ..report.curves import write_curves
from ..tracking import Tracker, end_status, forget_run, log_results, start_run
from ..tracking.spool import RUN_FILE
from . import runs
from .checkpoint import check_overwrite, remove_temporary, remove_weights
from .claims import claim_files, planned_files
from .configs import config_files, finish_config, further_options, load_config, own_file, quiet_about_folders
from .data import find_entries
from .handlers import Handler, History, find_handler
from .handlers.checkpoint import TrainingCheckpoint, stop_if_asked
from .handlers.tracking import CURVES, TrackingHandler
from .network import load_weights
from .overrides import check_overrides, convert_switches
from .preemption import EXIT_CODE, MARKER, noted_signals
from .roots import Roots

logger = logging.getLogger(__name__)

HISTORY = "history.csv"
MONAI_LOGS = ("monai.bundle.scripts", "monai.bundle.workflows")  # have handlers of their own, and log all overrides
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
        config_file: configuration, or several that are merged in order, each after its bases (see ``configs.bases``);
            the bundle is the folder above that of ``hyper_parameters.yaml`` among them, or of the first one.
        mode: ``train``, ``eval`` (scores of a labelled split) or ``infer`` (label maps of images); by default what
            ``workflow_type`` or the configuration says.
        workflow_type: MONAI's name for the mode.
        meta_file: see ``monai.bundle.ConfigWorkflow``.
        logging_file: see ``monai.bundle.ConfigWorkflow``.
        **override: configuration items by id.

    Raises:
        ConfigError: for an unknown mode, a misspelt override, or a key of a configuration file that reaches nothing.
    """

    @redacted_errors()
    def __init__(
        self,
        config_file: str | Sequence[str],
        mode: str | None = None,
        workflow_type: str | None = None,
        meta_file: str | Sequence[str] | None = None,
        logging_file: str | bool | None = None,
        **override: Any,
    ) -> None:
        root = own_file(config_file).resolve().parent.parent
        warn_of_version_conflict(root)
        make_importable(root)
        config = load_config(config_file)
        check_overrides(config, override)
        override = convert_switches(config, override)
        mode = self._find_mode(mode, workflow_type, config)
        options = {**config, **override}
        if options.get("ckpt_path") is None and mode == "train":
            distributed.initialise(options.get("device_name", "auto"))  # all processes take the same folder
        chosen, why = runs.choose_folder(root, mode, options)
        override = {"bundle_root": str(root), **override, **chosen, "mode": mode}
        with quiet_about_folders():
            super().__init__(
                config_file=[str(file) for file in config_files(config_file)],
                meta_file=str(root / METADATA) if meta_file is None else meta_file,
                logging_file=_logging_file(root) if logging_file is None else logging_file,
                workflow_type=MODES[mode],
            )
        for key, value in override.items():  # MONAI would take the + of a key for a part of its name
            merge_kv(self.parser, key, value)
        self.config_root_path = root / "configs"
        finish_config(self.parser.get())
        redact_logs(*MONAI_LOGS, *([] if logging_file is False else [""]))
        self.mode, self.root, self.override = mode, root, {**further_options(config_file), **override}
        if why:
            logger.info(why)
        if chosen and mode == "train" and distributed.rank() == 0:
            call_at_end(self, _remove_empty, Path(chosen["ckpt_path"]))
        self.tracker, self.trained_epochs = Tracker(None), 0
        self.roots = Roots()
        self.records: list[Manifest] = []

    @staticmethod
    def _find_mode(mode: str | None, workflow_type: str | None, config: dict[str, Any]) -> str:
        wanted = mode or TYPES.get(str(workflow_type).lower()) or config.get("mode", "train")
        if wanted not in MODES:
            raise ConfigError(f"mode is {wanted!r}; choose one of {', '.join(MODES)}")
        return str(wanted)

    @redacted_errors()
    def initialize(self) -> Any:
        """Join the other processes, if any, and parse the configuration."""
        distributed.initialise(self.parser.get("device_name", "auto"))
        self.roots.localise(self.parser, self.mode)
        with original_errors():
            if self.mode == "train":
                self._decide_resume()
            else:
                self._take_settings()
        return super().initialize()

    def _decide_resume(self) -> None:
        """Turn ``resume`` into true or false."""
        if "resume" in self.parser:
            value, folder = self.content("resume"), Path(self.content("ckpt_path"))
            shown = self.roots.shown(folder)
            self.parser["resume"] = distributed.from_first(lambda: runs.decide_resume(value, folder, shown))

    def _take_settings(self) -> None:
        """Configure network, normaliser, decoder and tiles as they were when the weights were trained."""
        weights = self.content("weights")
        if weights is None:
            return
        settings = settings_of(weights, self.root)
        if settings is None:
            return
        apply_settings(self.parser, settings)
        for key, value in self.override.items():  # the command line wins
            if top_id(key) in settings:
                merge_kv(self.parser, key, value)

    @redacted_errors()
    def run(self) -> None:
        """Train, evaluate or infer."""
        with noted_signals() if self.mode == "train" else nullcontext():
            try:
                self._run()
            except PreemptedError:
                distributed.barrier()  # torchrun kills the others when the first one leaves
                distributed.finalise()
                sys.exit(EXIT_CODE)

    def _run(self) -> None:
        with original_errors(), self.roots, ExitStack() as stack:
            if self.mode == "train":
                self._check_overwrite()
                run = self._describe_run()
            self.records = claim_files(
                self._files(),
                replace_foreign="replace_foreign" in self.parser and as_bool(self.content("replace_foreign")),
                shown=self.roots.shown,
                elsewhere=self.roots.elsewhere,
            )
            if self.mode == "train":
                stack.enter_context(runs.locked(run.folder, self.roots.shown(run.folder)))
            if self.parser.get("tracker"):
                self.tracker = self.content("tracker")
            with end_status(self.tracker):
                if self.mode == "train":
                    self._train_recorded(run)
                else:
                    {"eval": self._evaluate, "infer": self._infer}[self.mode]()
            self._forget_missing()

    def _check_overwrite(self) -> None:
        ids = {"resume": "resume", "overwrite": "overwrite", "phase": "phase_now"}
        options = {name: self.content(key) for name, key in ids.items() if key in self.parser}
        folder = self.content("ckpt_path")
        check_overwrite(folder, **options, shown=self.roots.shown(folder))

    def _files(self) -> dict[str | Path, list[Path]]:
        """Files that the run writes, by folder; ``check_overwrite`` looks for weights, tracking has its own folder."""
        files: dict[str | Path, list[Path]] = {}
        if self.mode == "train":
            folder = self.content("ckpt_path")
            names = [RUN_FILE, RECORD, MARKER, CURVES]
            files[folder] = [*(Path(folder) / name for name in names), *self.training_files()]
        if self.mode != "train" or (self.content("final_test") and self._why_no_test() is None):
            files.setdefault(self.content("output_dir"), []).extend(self._result_files())
        return files

    def _forget_missing(self) -> None:
        """Drop what was planned and not written from the records; call it when all processes have written."""
        for record in self.records if distributed.rank() == 0 else ():
            record.forget_missing()

    def training_files(self) -> list[Path]:
        """Files that a training writes beside the weights: handlers have them as ``path``."""
        handlers = self.parser.get("train", {}).get("handlers", [])
        return [
            Path(self.content(f"train#handlers#{number}#path"))
            for number, handler in enumerate(handlers)
            if isinstance(handler, dict) and "path" in handler
        ]

    def _result_files(self) -> list[Path]:
        """Files that an evaluation or inference writes."""
        names = [Path(FAILURES), *([] if self.mode == "infer" else REPORT_FILES)]
        writers = [*self._part("val_handlers"), *getattr(self._part("postprocessing"), "transforms", ())]
        images = [str(entry["image"]) for entry in self.content("dataset").data]
        return [*(Path(self.content("output_dir")) / name for name in names), *planned_files(writers, images)]

    def _part(self, name: str) -> Any:
        """Content of an argument of the evaluator."""
        return (self.content(f"evaluator#{name}") if f"evaluator#{name}" in self.parser else None) or ()

    @redacted_errors()
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

    def _describe_run(self) -> runs.RunRecord:
        """The record of this training; raises ``CheckpointError`` if it is not the one that it is to go on with."""
        folder = Path(self.content("ckpt_path"))
        record, old = runs.describe(self.parser, self.root), read_record(folder)
        if old is not None and as_bool(self.content("resume")):
            allowed = "allow_changes" in self.parser and as_bool(self.content("allow_changes"))
            runs.check_resumed(old, record, self.roots.shown(folder), allowed)
            record["started"] = old.get("started", record["started"])
        return runs.RunRecord(folder, record)

    def _train_recorded(self, run: runs.RunRecord) -> None:
        """Train, and say in the record of the run how it ended."""
        folder, shown = run.folder, self.roots.shown(run.folder)
        self._read_start()
        if distributed.rank() == 0:
            remove_temporary(folder)
            (folder / MARKER).unlink(missing_ok=True)
            if as_bool(self.content("overwrite")) and not as_bool(self.content("resume")):
                remove_weights(folder)
        run.update()
        status = runs.FAILED
        try:
            self._train()
            status = runs.FINISHED
        except PreemptedError as stop:
            status = runs.PREEMPTED
            if distributed.rank() == 0:
                (folder / MARKER).write_text(f"{stop}\n", encoding="utf-8")
            logger.warning("%s; the same command goes on with --resume auto", stop)
            raise
        except KeyboardInterrupt:
            status = runs.STOPPED
            raise
        finally:
            run.end(status, self.trained_epochs)
            self._draw_curves(folder)
            logger.info("run folder: %s (%s)", shown, status)

    def _read_start(self) -> None:
        """Read what the training starts from, before anything is replaced: building the trainer does it."""
        _ = self.trainer

    def _draw_curves(self, folder: Path) -> None:
        """Draw losses and scores beside ``history.csv``."""
        if distributed.rank() == 0 and (folder / HISTORY).is_file():
            rows = pd.read_csv(folder / HISTORY).to_dict("records")
            with suppress(OSError):  # a picture is not worth a training
                write_curves([{str(name): value for name, value in row.items()} for row in rows], folder / CURVES)

    def _train(self) -> None:
        self._fit()
        if self.content("final_test"):
            self._final_test()

    def _fit(self) -> None:
        trainer, checkpoint = self.trainer, self.handler(TrainingCheckpoint)
        files = self._track()
        self.trained_epochs = trainer.state.epoch
        if trainer.state.epoch >= trainer.state.max_epochs:
            logger.info(
                "epoch %d of %d is done already; give a larger max_epochs",
                trainer.state.epoch,
                trainer.state.max_epochs,
            )
            checkpoint.save_final(trainer)  # the process may have ended before it came to this
            return
        if checkpoint.has_stopped:
            logger.info("training has stopped early, after epoch %d; give a larger patience", trainer.state.epoch)
            checkpoint.save_final(trainer)
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
        checkpoint.tracker, checkpoint.described = self.tracker, True
        handler = TrackingHandler(self.tracker, self.handler(History))
        if self.tracker.is_on:
            handler.attach(self.trainer)
        return handler

    def _final_test(self) -> None:
        """Scores of the best weights on the testing entries of each data list, if there are any."""
        if reason := self._why_no_test():
            logger.info("no final test: %s", reason)
            return
        distributed.barrier()
        load_weights(self.content("network_def"), Path(self.content("ckpt_path")) / BEST)
        self.content("evaluator").add_event_handler(Events.ITERATION_COMPLETED, stop_if_asked)
        self._evaluate()

    def _why_no_test(self) -> str | None:
        """Reason why there are no testing entries, None if there are some."""
        try:
            find_entries(self.content("data_list_files"), "testing")
        except CellBundleError as error:
            return str(error)
        return None

    def _evaluate(self) -> None:
        evaluator = self.content("evaluator")
        start_run(self.tracker, self.parser, self.mode)
        try:
            evaluator.run()
        except ArrayError:  # no image is left to score
            self._raise_failures()
            raise
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
            write_failures(folder, failures)
        if failures:
            self._forget_missing()
            raise CellBundleError(
                f"{len(failures)} of {len(self.content('dataset'))} images failed, the first: {failures[0][1]}; "
                f"all others are done, see {folder / FAILURES}"
            )


def _logging_file(root: Path) -> str | bool:
    """A bundle's settings of logging; False if it has none."""
    file = root / "configs" / "logging.conf"
    return str(file) if file.is_file() else False


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a run that did not begin."""
    with suppress(OSError):
        if all(path.name == STATE for path in folder.iterdir()):
            shutil.rmtree(folder)
