"""The command ``cellbundle``. Each command imports what it needs itself, so that ``--help`` is immediate."""

import functools
import io
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from ..addresses import is_address, redact, redact_logs, redact_text
from ..errors import CellBundleError, ConfigError, redacted_errors
from . import config, data, datalists, doctor, info, install, log_model, package, predict, serve, sync_runs

FAILED, USAGE, INTERRUPTED = 1, 2, 130
LOGGER = logging.getLogger(__name__.partition(".")[0])
# The base of Click's errors about arguments; newer versions of Typer have a Click of their own.
USAGE_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Find and measure single cells and nuclei in 2-D microscopy images.",
    epilog="--debug with any command shows where an error comes from. Exit codes: 0 done, 1 failed, 2 wrong usage.",
)


def guarded(command: Callable[..., int]) -> Callable[..., None]:
    """Turn what a command returns into its exit code, and the errors that users see into one line on stderr."""

    @functools.wraps(command)
    def guard(*args: object, **options: object) -> None:
        """Run the command and leave with its exit code."""
        try:
            with redacted_errors():
                _check_paths(options.values())
                code = command(*args, **options)
        except KeyboardInterrupt:
            sys.stderr.write("stopped; finished files are kept, and the same command goes on with the others\n")
            code = INTERRUPTED
        except (CellBundleError, OSError) as error:
            if LOGGER.isEnabledFor(logging.DEBUG):
                raise
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
            code = USAGE if isinstance(error, ConfigError) else FAILED
        raise typer.Exit(code)

    return guard


def _check_paths(values: Iterable[object]) -> None:
    """Raise ``ConfigError`` for an address in the place of a path: a folder of that name would be made."""
    paths = (path for value in values for path in (value if isinstance(value, list) else [value]))
    for path in paths:
        if isinstance(path, Path) and is_address(str(path)):
            raise ConfigError(f"{redact(str(path))} is an address; this command takes paths of files and folders only")


app.command("predict")(guarded(predict.predict))
app.command("install")(guarded(install.install))
app.command("info")(guarded(info.info))
app.command("package")(guarded(package.package))
app.command("evaluate")(guarded(datalists.evaluate))
app.command("validate-data")(guarded(datalists.validate_data))
app.command("serve")(guarded(serve.serve))
app.command("log-model")(guarded(log_model.log_model))
app.command("sync-runs")(guarded(sync_runs.sync_runs))
app.command("config")(guarded(config.config))
app.command("list")(guarded(doctor.list_command))
app.command("doctor")(guarded(doctor.doctor))

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Public data sets, and your own.")
data_app.command("list")(guarded(data.list_data_sets))
data_app.command("info")(guarded(data.info))
data_app.command("prepare")(guarded(data.prepare))
data_app.command("verify")(guarded(data.verify))
app.add_typer(data_app, name="data")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, of this process by default, and leave with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
    redact_logs("")
    LOGGER.setLevel(logging.DEBUG if "--debug" in given else logging.INFO)
    arguments = [argument for argument in given if argument != "--debug"]
    try:
        code = app(args=arguments, prog_name="cellbundle", standalone_mode=False)
    except USAGE_ERROR as error:  # names the wrong argument, perhaps an address
        message = io.StringIO()
        error.show(message)
        sys.stderr.write(redact_text(message.getvalue()))
        code = error.exit_code
    except typer.Abort:
        sys.stderr.write("Aborted!\n")
        code = FAILED
    sys.exit(code)
