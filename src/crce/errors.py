"""Errors meant for the person at the keyboard: what was given, what is allowed, what to do."""

import re
import reprlib
from typing import Any


# Controls but tabs and line breaks, marks of direction, characters without a shape, halves of characters. Joiners are
# fine where they join: in emoji, and in words of other scripts.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\uf8ff\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)


class CRCEError(Exception):
    """Base of every error that the command line shows as one line, without a traceback."""


class ConceptError(CRCEError):
    """A concept set is missing, unreadable or holds faults (all of them are listed in one message)."""


class ConfigError(CRCEError):
    """A recipe or a flag holds an unknown key or a value out of range."""


class ModelError(CRCEError):
    """A model can't be found, read, or is of a kind that crce does not support."""


class RunError(CRCEError):
    """A run folder is missing, unfinished, or can't be written."""


class MemoryShortage(CRCEError):
    """The device's memory ran out where no smaller batch is possible."""


class SuggestError(CRCEError):
    """Nothing can be suggested: the concept is unknown, or a language model fails, refuses or talks nonsense.

    Attributes:
        concept: what was asked about, as it was typed; empty where no language model was asked.
        exchanges: the questions to the language model and its answers until then, which may have been paid for.
    """

    concept: str = ""
    exchanges: tuple[dict[str, Any], ...] = ()


def shown(value: object) -> str:
    """The `repr` of a value of any size and depth, cut off where it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def escaped(text: str) -> str:
    """`text` for a terminal, with escapes for what would steer it or can't be seen."""
    return HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def first_line(error: Exception) -> str:
    """The first line of an error's text without its full stop, or the error's class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
