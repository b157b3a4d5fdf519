"""The program `dynin`: its commands, and the one place where an error becomes a line and a status.

Enters: arguments. Leaves: an exit status; 0 done, 2 a mistake that the message explains, 130 interrupted. Does not know
what a command does; commands import what they need when they run, so that `--help` does not wait for torch.
"""

import sys
from collections.abc import Sequence

import typer

from dynin.cli.convert import convert
from dynin.cli.data import data
from dynin.cli.demo import demo
from dynin.cli.doctor import doctor
from dynin.cli.evaluate import evaluate
from dynin.cli.generate import generate
from dynin.cli.merge import merge
from dynin.cli.plan import plan
from dynin.cli.segment import segment
from dynin.cli.train import train
from dynin.cli.train_codec import train_codec
from dynin.cli.virst import virst
from dynin.cli.virst_likeness import train_likeness
from dynin.cli.virst_reader import train_reader
from dynin.cli.virst_train import train as train_virst
from dynin.errors import DyninError

ClickError: type[Exception] = typer.BadParameter.__mro__[2]
"""What typer raises for unknown commands, flags and values; its home differs between versions of typer."""

app = typer.Typer(
    name="dynin",
    help="Any modality in, any modality out: text, pictures, video and speech.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command()(segment)
app.command()(demo)
app.command()(evaluate)
app.add_typer(data, name="data")
app.add_typer(virst, name="virst")
virst.command("train")(train_virst)
virst.command("train-likeness")(train_likeness)
virst.command("train-reader")(train_reader)
app.command()(train)
app.command()(convert)
app.command()(plan)
app.command("train-codec")(train_codec)
app.command()(merge)
app.command()(doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        status = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except DyninError as error:
        return _refuse(str(error))
    except ClickError as error:
        return _refuse(error.format_message())  # type: ignore[attr-defined]
    except OSError as error:  # a path that the system cannot even look up, a full disk, a closed pipe
        return _refuse(f"{str(error.filename or 'the system')[:200]}: {error.strerror or type(error).__name__}")
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("dynin: interrupted\n")
        return 130
    except typer.Exit as stop:
        return int(stop.exit_code)
    return status if isinstance(status, int) else 0


def _refuse(message: str) -> int:
    """Print one line; the status of a user's mistake."""
    sys.stderr.write(f"dynin: {' '.join(message.split())}\n")
    return 2
