"""`crce`: the verbs, and how an error becomes one line and an exit code.

Exit codes: 0 done; 1 something failed on the way; 2 what was asked for can't be done as it stands; 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from crce import __version__
from crce.cli.attack import attack
from crce.cli.bench import bench
from crce.cli.env import env
from crce.cli.erase import erase_command
from crce.cli.evaluate import evaluate
from crce.cli.export import check, export, info, push
from crce.cli.feedback import feedback
from crce.cli.generate import generate
from crce.cli.ls import ls
from crce.cli.methods import methods
from crce.cli.plan import plan_command
from crce.cli.refine import refine
from crce.cli.review import review
from crce.cli.show import show
from crce.cli.suggest import suggest
from crce.cli.terminal import error_line, messages
from crce.errors import CRCEError


# typer brings its own click or uses the installed one, depending on its version: reach the class through typer.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"crce {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
    # Taken out of the arguments by main() before they are parsed, so that it may stand anywhere.
    debug: Annotated[bool, typer.Option("--debug", help="Show warnings, and the traceback of an error.")] = False,
) -> None:
    """Erase a concept from a text-to-image model with its corefs, and keep its neighbours."""


def command_line(verb: str = "") -> typer.Typer:
    """The `crce` command with all its verbs, or with `verb` alone if there is one of that name: reading the flags of
    each takes its time."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Start with: crce erase cat",
    )
    app.callback()(_options)
    app.command("erase", epilog="Example: crce erase cat --steps 300 --out runs/cat-long")(erase_command())
    app.command("plan", epilog="Example: crce plan --model stabilityai/stable-diffusion-xl-base-1.0 --vram 12")(
        plan_command()
    )
    app.command("suggest", epilog='Example: crce suggest "bat (animal)" --ground')(suggest)
    app.command("review", epilog="Example: crce review bat.yaml")(review)
    app.command("feedback", epilog="Example: crce feedback --export decisions.jsonl")(feedback)
    app.command("generate", epilog='Example: crce generate "a kitten" "a dog" --run runs/cat-1')(generate)
    app.command("evaluate", epilog="Example: crce evaluate runs/cat-1 --images-per-prompt 12")(evaluate)
    app.command("bench", epilog="Example: crce bench quick.yaml --jobs 2")(bench)
    app.command("attack", epilog="Example: crce attack runs/cat-1 --attack ring-a-bell --budget 200")(attack)
    app.command("refine", epilog="Example: crce refine runs/cat-1 --rounds 2")(refine)
    app.command("export", epilog="Example: crce export runs/cat-1 --to kohya")(export)
    app.command("check", epilog="Example: crce check erase-cat-kohya.safetensors --against runs/cat-1")(check)
    app.command("info", epilog="Example: crce info erase-cat-kohya.safetensors --json")(info)
    app.command("push", epilog="Example: crce push runs/cat-1 me/erase-cat --dry-run")(push)
    app.command("show", epilog="Example: crce show cat --yaml > my-cat.yaml")(show)
    app.command("ls", epilog="Example: crce ls --kind character")(ls)
    app.command("methods", epilog="Example: crce methods")(methods)
    app.command("env", epilog="Example: crce env --json")(env)
    alone = [command for command in app.registered_commands if command.name == verb]
    app.registered_commands = alone or app.registered_commands
    return app


def main(argv: list[str] | None = None) -> int:
    """Run one `crce` command.

    Args:
        argv: the arguments after `crce`; None takes them from the command line.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    with messages(debug):
        try:
            command = typer.main.get_command(command_line(arguments[0]))
            return command.main(arguments, prog_name="crce", standalone_mode=False) or 0
        except (KeyboardInterrupt, typer.Abort):
            return 130
        except Exception as error:
            if debug:
                traceback.print_exc()
            if isinstance(error, UsageError):
                error_line(_usage_text(error))
                return 2
            if isinstance(error, CRCEError):
                error_line(str(error))
                return 2
            first_line = (str(error).splitlines() or [""])[0].rstrip(".")
            cure = "" if debug else " Run the same command again with --debug to see where it happened."
            error_line(f"unexpected {type(error).__name__}: {first_line}.{cure}")
            return 1


def _usage_text(error: Exception) -> str:
    """One line from a usage error: what is wrong, then where the help is."""
    text = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
    context = error.ctx  # type: ignore[attr-defined]
    stop = "" if text.endswith("?") else "."
    return f"{text}{stop} See: {context.command_path if context else 'crce'} --help"


def run() -> None:
    """The console entry point."""
    sys.exit(main())
