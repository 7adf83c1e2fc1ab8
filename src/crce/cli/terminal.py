"""Messages in the terminal: those of crce as lines, those of other libraries hidden."""

from __future__ import annotations

import inspect
import json
import logging
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any

import typer

from crce.errors import ConfigError, escaped


class _Lines(logging.Handler):
    """Prints one line per record, above a live progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(f"{record.levelname.lower()}: {escaped(record.getMessage())}", err=True)


def error_line(text: str) -> None:
    typer.echo(f"error: {escaped(text)}", err=True)


def print_json(value: Any, *, ascii_only: bool = True) -> int:
    """Print a value as indented JSON; returns exit code 0."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=ascii_only))
    return 0


@contextmanager
def messages(debug: bool) -> Iterator[None]:
    """Print warnings of crce to stderr, one line each, and those of other libraries only with `debug`."""
    logger, handler = logging.getLogger("crce"), _Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def quiet_libraries() -> None:
    """Hide the messages and progress bars of transformers and diffusers, unless --debug was given.

    Call it before any other import of them: transformers reports missing packages while it is imported.
    """
    if logging.getLogger("crce").isEnabledFor(logging.DEBUG):
        return
    for library in ("transformers", "huggingface_hub", "diffusers"):
        messages_of = import_module(f"{library}.utils.logging")
        messages_of.set_verbosity_error()
        if library != "huggingface_hub":
            messages_of.disable_progress_bar()


def refuse_unused(verb: Callable[..., int], arguments: Mapping[str, Any], names: Collection[str], why: str) -> None:
    """Refuse flags of `verb`, called `names`, that were given and would have no effect, as `why` says."""
    known = inspect.signature(verb, eval_str=True).parameters
    if given := [name for name in names if arguments[name] != known[name].default]:
        named = {name: str(known[name].annotation.__metadata__[0].default) for name in given}  # typer.Option("--name")
        flags = ", ".join(flag if flag.startswith("--") else f"--{name}" for name, flag in named.items())
        raise ConfigError(f"{flags.replace('_', '-')} would have no effect, as {why}. Leave it out.")


LINES = 10  # lines in place of a whole bar
PATIENCE = 1.0  # seconds of work of which nothing is said in a log


def print_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    dim: Collection[int] = (),
    soft_wrap: bool = False,
    **options: Any,
) -> None:
    """Print a table to stdout, without interpreting markup.

    `right` are titles of columns aligned to the right, `dim` numbers of rows from 0, `options` those of rich's Table;
    with `soft_wrap` lines may be longer than the terminal is wide.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title_justify="left", title_style="bold", **options)
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", no_wrap=soft_wrap)
    for i, row in enumerate(rows):
        table.add_row(*(Text(escaped(cell)) for cell in row), style="dim" if i in dim else "")
    Console(highlight=False, soft_wrap=soft_wrap).print(table)


def print_facts(facts: Mapping[str, Any], width: int) -> int:
    """Print a line for each fact that is not empty, with its name in a column of this width; returns exit code 0."""
    for name, value in facts.items():
        if value not in ("", None):
            typer.echo(escaped(f"{name:<{width}} {value}"))
    return 0


def print_some(lines: Sequence[str], most: int, *, indent: str = "", err: bool = False) -> None:
    """Print the first lines, and how many more there are."""
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    for line in (*lines[:most], *more):
        typer.echo(escaped(indent + line), err=err)


class Bar(AbstractContextManager["Bar"]):
    """A progress bar with a note, on stderr, so that stdout has only results.

    Until the first `show` it says `begin`, what is done before there are steps to count; without it, the title. The
    libraries of models are loaded under it, unless it is `light`.
    """

    def __init__(self, title: str, begin: str = "", *, light: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.title, self._begin, self._light = title, f"{begin or title} ...", light
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(16),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=self.console,
            transient=True,
        )
        self._task = self.progress.add_task(self._begin, total=None, note="")
        self._printed = 0
        # in a log, of what is done soon nothing is said
        self._waiting = threading.Timer(PATIENCE, typer.echo, [self._begin], {"err": True})
        self._waiting.daemon = True

    def __enter__(self) -> Bar:
        if self.console.is_terminal:
            self.progress.start()
        else:
            self._waiting.start()
        if not self._light:
            quiet_libraries()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar from the terminal; the next `show` starts another."""
        self._printed = 0
        self._waiting.cancel()
        if self.console.is_terminal:
            self.progress.stop()

    def follow(self, event: Any) -> None:
        """Show an event of generating images, which has `done`, `total` and a `note`, or a `prompt`."""
        self.show(event.done, event.total, event.note if hasattr(event, "note") else event.prompt)

    def show(self, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` steps are done."""
        self._waiting.cancel()
        if self.console.is_terminal:
            self.progress.start()
            self.progress.update(self._task, description=self.title, completed=done, total=total, note=note)
        elif done * LINES // max(total, 1) > self._printed or self._printed == 0:
            self._printed = done * LINES // max(total, 1) or 1
            line = f"{self.title} {done}/{total}" + (f"  {note}" if note else "")
            self.console.print(line, markup=False, soft_wrap=True)
