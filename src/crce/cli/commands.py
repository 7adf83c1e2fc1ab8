"""The commands of a review: parses a line and applies it to the review."""

from contextlib import suppress

from crce.concepts.faults import did_you_mean
from crce.errors import SuggestError
from crce.suggest.review import Review


# name, short form, arguments, description
COMMANDS: tuple[tuple[str, str, str, str], ...] = (
    ("accept", "a", "3 5-8 | all", "keep these phrases (all: every undecided one); restores rejected ones"),
    ("reject", "r", "3 5-8 | all", "remove these phrases from the set, and never propose them again"),
    ("move", "m", "3", "move it to the other side"),
    ("edit", "e", "3 NEW WORDS", "change its words"),
    ("certainty", "c", "3 High | 3 0.8", "change its certainty, the weight in training"),
    ("hold", "h", "3", "hold it out of training, for evaluation"),
    ("train", "t", "3", "use it in training"),
    ("add", "+", "coref|retain WORDS", "add a phrase of your own"),
    ("undo", "u", "", "undo the last change"),
    ("redo", "", "", "redo it"),
    ("list", "l", "", "show the set"),
    ("help", "?", "", "show these commands"),
    ("quit", "q", "", "quit; everything is saved already"),
)
_NAMES = {form: name for name, short, _, _ in COMMANDS for form in (name, short) if form} | {"save": "quit"}


def parse(line: str) -> tuple[str, str]:
    """The full name of a command (empty for an empty line) and its arguments; a SuggestError if there is none such."""
    first, _, rest = line.strip().partition(" ")
    if not first:
        return "", ""
    if first.lower() not in _NAMES:
        hint = did_you_mean(first, list(_NAMES))
        raise SuggestError(f"There is no command {first!r}.{hint} Use one of: {', '.join(c[0] for c in COMMANDS)}.")
    return _NAMES[first.lower()], rest.strip()


def apply(review: Review, name: str, words: str) -> Review:
    """The review after one command; a SuggestError or ConceptError where it can't be carried out."""
    first, _, rest = words.partition(" ")
    match name:
        case "undo" | "redo" if words:
            raise SuggestError(f"{name} takes no arguments, but got {words!r}.")
        case "undo":
            return review.undo()
        case "redo":
            return review.redo()
        case "add" if first in ("coref", "retain") and rest.strip():
            return review.add(first, rest)  # type: ignore[arg-type]  # mypy does not narrow by `in`
        case "edit" | "certainty" if first.isdecimal() and rest.strip():
            number = int(first)
            if name == "edit":
                return review.edit(number, rest)
            with suppress(ValueError):
                return review.set_certainty(number, float(rest))
            return review.set_certainty(number, rest)
        case "add" | "edit" | "certainty":
            raise SuggestError(f"{name} can't take {words!r}. Write: {_usage(name)}.")
        case "accept" | "reject" if words.lower() == "all":
            if not review.open:
                raise SuggestError("Every phrase is already decided.")
            return getattr(review, name)(*(e.number for e in review.open))
    operation = review.hold_out if name == "hold" else getattr(review, name, None)
    if operation is None:
        raise SuggestError(f"{name or 'An empty line'} changes nothing in a review.")
    return operation(*_numbers(words, name, review))


def _numbers(words: str, name: str, review: Review) -> list[int]:
    """The numbers in "3 5-8" or "3, 5"."""
    found: list[int] = []
    for word in words.replace(",", " ").split():
        low, dash, high = word.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise SuggestError(f"{name} can't take {word!r}. Write: {_usage(name)}.")
        first, last = (review.entry(int(end)).number for end in (low, high or low))
        if first > last:
            raise SuggestError(f"{word!r} is reversed. Write {last}-{first}.")
        found += range(first, last + 1)
    if not found:
        raise SuggestError(f"{name} needs the number of a phrase. Write: {_usage(name)}.")
    return found


def _usage(name: str) -> str:
    after = next(after for known, _, after, _ in COMMANDS if known == name)
    return " or ".join(f"'{name} {one.strip()}'" for one in after.split(" | "))
