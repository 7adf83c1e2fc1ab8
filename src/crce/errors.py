"""Errors meant for the person at the keyboard: what was given, what is allowed, what to do."""

from __future__ import annotations

import reprlib
import unicodedata
from typing import Any


_INVISIBLE = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs without a shape


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


def brief_repr(value: object) -> str:
    """The `repr` of a value of any size and depth, cut off where it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def escaped(text: str) -> str:
    """`text` for a terminal: characters that would steer it, or can't be seen, as escapes."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(ascii(c)[1:-1] if is_hidden(c) and c not in "\n\t" else c for c in text)


def is_hidden(character: str) -> bool:
    """Whether a character steers a terminal, changes the direction of writing, or has no shape; joiners have a use."""
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co")
    return (hidden and character not in "\u200c\u200d") or character in _INVISIBLE


def first_line(error: Exception) -> str:
    """The first line of an error's text without its full stop, or the error's class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
