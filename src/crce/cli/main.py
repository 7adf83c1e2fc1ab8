"""`crce`: the verbs, and how an error becomes one line and an exit code.

Exit codes: 0 done; 1 something failed on the way; 2 the request can't be carried out as it is; 130 interrupted.
"""

import ast
import os
import sys
import traceback
from collections.abc import Callable
from importlib.resources import files
from pkgutil import resolve_name
from typing import Annotated

import typer

from crce import __version__
from crce.cli.help import GroupedCommand, GroupedVerbs
from crce.cli.terminal import error_line, messages, quiet_libraries
from crce.errors import ConfigError, CRCEError, escaped, first_line, shown


# each verb with its group and an example, in the order of the help; its function is `crce.cli.<module>:<function>`
VERBS = {
    "ls": ("listings:ls", "Concepts", "crce ls --kind character"),
    "show": ("listings:show", "Concepts", "crce show cat --yaml > my-cat.yaml"),
    "suggest": ("suggest:suggest", "Concepts", 'crce suggest "bat (animal)"'),
    "review": ("review:review", "Concepts", "crce review bat.yaml"),
    "feedback": ("review:feedback", "Concepts", "crce feedback --export decisions.jsonl"),
    "plan": ("plan:plan_command", "Erasure", "crce plan --model stabilityai/sdxl-turbo --vram 12"),
    "erase": ("erase:erase_command", "Erasure", "crce erase cat --steps 300 --out runs/cat-long"),
    "delete": ("delete:delete", "Erasure", "crce delete cat --by me --reason 'a request'"),
    "combine": ("export:combine", "Erasure", "crce combine runs/cat-1 runs/dog-1"),
    "methods": ("listings:methods", "Erasure", "crce methods"),
    "generate": ("generate:generate", "Measurement", 'crce generate "a kitten" "a dog" --run runs/cat-1'),
    "evaluate": ("evaluate:evaluate", "Measurement", "crce evaluate runs/cat-1 --images-per-prompt 12"),
    "attack": ("attack:attack", "Measurement", "crce attack runs/cat-1 --attack ring-a-bell --budget 200"),
    "refine": ("refine:refine", "Measurement", "crce refine runs/cat-1 --rounds 2"),
    "bench": ("bench:bench", "Measurement", "crce bench benchmarks/erasure/quick.yaml --jobs 2"),
    "export": ("export:export", "Export", "crce export runs/cat-1 --to kohya"),
    "check": (
        "export:check",
        "Export",
        "crce check runs/cat-1/export/erase-cat-kohya.safetensors --against runs/cat-1",
    ),
    "info": ("export:info", "Export", "crce info runs/cat-1/export/erase-cat-kohya.safetensors --json"),
    "push": ("export:push", "Export", "crce push runs/cat-1 me/erase-cat --dry-run"),
    "web": ("web:web", "More", "crce web --folder runs"),
    "env": ("listings:env", "More", "crce env --json"),
}
BUILDERS = ("erase", "plan")  # their functions return the verb, with flags for settings of an erasure

# Depending on its version, typer has its own click or uses the installed one: get the class from typer.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"crce {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    # main() removes it from the arguments before they are parsed, so that it may be anywhere.
    debug: Annotated[bool, typer.Option("--debug", help="Show all warnings, and the traceback of an error.")] = False,
) -> None:
    """Erase a concept from a text-to-image model, together with its other names, and keep its neighbours."""


def command_line(only: str = "") -> typer.Typer:
    """The `crce` command with one verb or, where there is none of that name, with all verbs but without their flags,
    as importing them takes time that the list of verbs does not need."""
    app = typer.Typer(
        add_completion=False,
        cls=GroupedVerbs,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Start with: crce erase cat",
    )
    app.callback()(_options)
    for name in [only] if only in VERBS else VERBS:
        place, group, example = VERBS[name]
        verb = app.command(name, cls=GroupedCommand, rich_help_panel=group, epilog=f"Example: {example}")
        if name == only:
            function = resolve_name(f"crce.cli.{place}")
            verb(function() if name in BUILDERS else function)
        else:
            verb(_summarised(place.partition(":")[0], name))
    return app


def _summarised(module: str, verb: str) -> Callable[[], None]:
    """A function with nothing but the docstring of a verb, which is read without importing its module."""
    tree = ast.parse((files("crce.cli") / f"{module}.py").read_text(encoding="utf-8"))
    documented = {node.name: ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}

    def summarised() -> None: ...

    summarised.__doc__ = documented[verb]
    return summarised


def main(argv: list[str] | None = None) -> int:
    """Run one `crce` command, with the arguments after `crce` (None: those of the process); returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    with messages(debug):
        try:
            _check_arguments(arguments)
            launched = "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
            if launched and _follows(arguments):
                return 0
            command = typer.main.get_command(command_line(arguments[0]))
            code = command.main(arguments, prog_name="crce", standalone_mode=False) or 0
            sys.stdout.flush()  # what can't be printed is an error too
            if launched:
                from crce.training import processes

                processes.send(None)
            return code
        except (KeyboardInterrupt, typer.Abort):
            return 130
        except Exception as error:
            if debug:
                traceback.print_exc()
            if isinstance(error, OSError):  # of a file, wherever it was read or written
                place = error.filename or "the output or the current folder"
                reason = error.strerror or first_line(error)
                error = CRCEError(f"Cannot read or write {place}: {reason}. Choose another place.")
            if isinstance(error, UsageError | CRCEError):
                error_line(str(error) if isinstance(error, CRCEError) else _usage_text(error))
                return 2
            cure = "" if debug else " Run the same command with --debug to see where it happened."
            error_line(f"unexpected {type(error).__name__}: {first_line(error)}.{cure}")
            return 1


def _follows(arguments: list[str]) -> bool:
    """Join the processes that a launcher started, and work for process 0 if this is another; whether it was."""
    if arguments[0] != "erase" or "--each" in arguments:
        raise ConfigError(
            f"RANK and WORLD_SIZE say that this is one of several processes, which share the steps of one crce erase. "
            f"Run crce {' '.join(arguments[:1])} without a launcher; crce erase --each has --jobs and --ray."
        )
    quiet_libraries()
    from crce.training import processes

    if processes.begin() == 0:
        return False
    processes.follow()
    return True


def _check_arguments(arguments: list[str]) -> None:
    """Refuse what no argument can mean, and what the terminal would not show."""
    for before, argument in zip(["crce", *arguments], arguments, strict=False):
        if not argument.strip() or (argument.startswith("--") and argument.endswith("=")):
            raise ConfigError(f"The argument after {shown(before)} is empty. Give a value, or leave it out.")
        if escaped(argument) != argument or argument.splitlines() != [argument]:
            raise ConfigError(f"An argument has characters that can't be seen: {shown(argument)}. Type it again.")


def _usage_text(error: Exception) -> str:
    """A usage error on one line, and the command that shows the help."""
    text = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
    context = error.ctx  # type: ignore[attr-defined]
    stop = "" if text.endswith("?") else "."
    return f"{text}{stop} See: {context.command_path if context else 'crce'} --help"


def choose_waiting(load: float) -> None:
    """Have the idle threads of torch sleep where other programs are at work, unless OMP_WAIT_POLICY says otherwise.

    Threads that spin while they wait take the cores from those programs, and these in turn from the threads that work.
    It has to be known before torch is imported. `load` is how many processes were running lately, on average.
    """
    if load >= 1:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run() -> None:
    """The console entry point."""
    choose_waiting(os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0)
    sys.exit(main())
