"""Messages in the terminal: those of crce as lines, those of other libraries hidden."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer


class _Lines(logging.Handler):
    """Prints one line per record, above a live progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(f"{record.levelname.lower()}: {record.getMessage()}", err=True)


def error_line(text: str) -> None:
    """Print an error to stderr."""
    typer.echo(f"error: {text}", err=True)


@contextmanager
def messages(debug: bool) -> Iterator[None]:
    """Print warnings of crce to stderr, one line each, and those of other libraries only with `debug`."""
    logger = logging.getLogger("crce")
    handler = _Lines()
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
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
