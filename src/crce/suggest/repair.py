"""How the text of a language model becomes the JSON object and the words that were asked for.

Every repair is counted in `notes`. What can't be repaired is an AnswerError, whose words tell the model what to do
better.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, cast, get_args

from crce.concepts.concept_set import CERTAINTY_WORDS, fold, text_fault, tidy


T = TypeVar("T")
CertaintyWord = Literal["Very High", "High", "Normal", "Low", "Very Low"]

MAX_CHARS = 200_000  # of an answer; the largest sensible one is a tenth of it, but some models think aloud
_MAX_REPAIR = 12_000  # json-repair takes quadratic time on some nonsense
_MAX_STARTS = 50  # places where a JSON object may begin

_MISSING: CertaintyWord = "Normal"  # the middle word, as for a CorefConcept phrase without a certainty
_WORDS: dict[str, CertaintyWord] = {
    **{fold(word): word for word in get_args(CertaintyWord)},
    "certain": "Very High",
    "highest": "Very High",
    "medium": "Normal",
    "moderate": "Normal",
    "average": "Normal",
    "lowest": "Very Low",
}
_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)


class AnswerError(ValueError):
    """An answer that can't be used.

    Attributes:
        partial: what could be read all the same, for when no better answer comes; None where nothing could.
    """

    def __init__(self, text: str, partial: Parsed[Any] | None = None) -> None:
        super().__init__(text)
        self.partial = partial


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """What an answer says, and how it had to be repaired."""

    value: T
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """How the object that was asked for is told from others.

    Attributes:
        in_text: finds a key of it, with what opens its value, in text that is no valid JSON.
        key: matches its keys once it is read.
    """

    in_text: re.Pattern[str]
    key: re.Pattern[str]

    def fits(self, value: object) -> bool:
        return isinstance(value, dict) and any(self.key.fullmatch(str(key).strip()) for key in value)


def shortened(text: str, notes: Counter[str]) -> str:
    """`text` up to MAX_CHARS, without what a model thought aloud before its answer."""
    if len(text) > MAX_CHARS:
        notes[f"only the first {MAX_CHARS:,} of {len(text):,} characters are read"] += 1
        text = text[:MAX_CHARS]
    without = _THINKING.sub(" ", text)
    if without != text:
        notes["the model's thinking aloud is passed over"] += 1
    return without.strip()


def object_in(text: str, shape: Shape, notes: Counter[str]) -> tuple[dict[str, Any], bool]:
    """The JSON object of that shape in `text`, repaired where it must be, and whether its end is cut off."""
    decoder = json.JSONDecoder(strict=False)  # takes line breaks and other control characters within strings
    found: dict[str, Any] | None = None
    at = text.find("{")
    for _ in range(_MAX_STARTS):
        if at < 0:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if shape.fits(value) or (isinstance(value, dict) and any(map(shape.fits, value.values()))):
                found = value  # the last one counts: drafts and examples come first
                if at > 0 or text[end:].strip():
                    notes["the text around the JSON is passed over"] += 1
        at = text.find("{", end)
    if found is not None:
        return found, False
    first = shape.in_text.search(text)
    if first is None:
        raise AnswerError(f"it is not the JSON object that was asked for; it begins {_begins(text)}")
    return _repaired(text[first.start() :], notes)


def _repaired(text: str, notes: Counter[str]) -> tuple[dict[str, Any], bool]:
    """The object whose first key begins `text`, and whether its end is cut off."""
    import json_repair

    try:
        value = json_repair.loads("{" + text[:_MAX_REPAIR], skip_json_loads=True)
    except (ValueError, RecursionError) as error:
        raise AnswerError("its JSON is broken beyond repair. Write valid JSON") from error
    if isinstance(value, list):  # two objects, or an object and a stray bracket
        value = next((item for item in value if isinstance(item, dict)), None)
    if not isinstance(value, dict):
        raise AnswerError(f"its JSON is broken beyond repair; it begins {_begins(text)}")
    # cut off in the midst of an entry, where something opens after the last brace that closes
    cut = len(text) > _MAX_REPAIR or "}" not in text or any(c in text[text.rfind("}") :] for c in "{[\"'")
    notes["the JSON is cut off; what is whole is read" if cut else "the JSON is broken and was repaired"] += 1
    return value, cut


def unwrapped(value: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """`value`, or the object of that shape that it wraps, as in {"answer": {"corefs": ...}}."""
    if shape.fits(value):
        return value
    return next((inner for inner in value.values() if shape.fits(inner)), value)


def certainty_word(given: object, notes: Counter[str]) -> CertaintyWord:
    """The word meant by another word, or the one nearest to a number in [0, 1] or a percentage."""
    if isinstance(given, str) and given in CERTAINTY_WORDS:
        return cast(CertaintyWord, given)
    word: CertaintyWord = _MISSING
    if isinstance(given, str):
        plain = tidy(re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", given))).casefold()
        number = re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,9})?)\s*(%?)\s*", given)
        if number:
            word = _nearest(float(number[1]) / (100 if number[2] else 1))
        elif near := difflib.get_close_matches(plain[:40], _WORDS, n=1, cutoff=0.7):
            word = _WORDS[near[0]]
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        word = _nearest(given)
    shown = "a missing certainty" if given is None else f"certainty {str(given)[:40]!r}"
    notes[f"{shown} is read as {word}"] += 1
    return word


def _nearest(number: float) -> CertaintyWord:
    share = number / 100 if 1 < number <= 100 else number
    if not 0 <= share <= 1:
        return _MISSING
    return min(get_args(CertaintyWord), key=lambda word: abs(CERTAINTY_WORDS[word] - share))


def cleaned(text: str, notes: Counter[str]) -> str:
    """`text` on one line, without control characters."""
    text = tidy(text)
    if text_fault(text) is None or not text:
        return text
    notes["control characters are removed"] += 1
    return tidy("".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs")))


def _begins(text: str) -> str:
    return repr(tidy(text[:400])[:80]) if text.strip() else "with nothing"


def texts(notes: Counter[str]) -> tuple[str, ...]:
    """Each note once, with how often it was made."""
    return tuple(text if count == 1 else f"{text} ({count} times)" for text, count in notes.items())
