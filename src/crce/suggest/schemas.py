"""Answers of a language model: the JSON schemas they are held to, and the models that read them.

Servers and small models do not always keep to the schema. An object that is broken is repaired by json-repair; the
models accept what is clearly meant ("Hihg" for "High"), and entries that they reject are left out. An answer without
anything usable is an AnswerError, whose text tells the model what to do better.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from itertools import islice
from textwrap import shorten
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from crce.concepts.concept_set import CERTAINTY_WORDS, fold, tidy
from crce.concepts.faults import likely_slip
from crce.suggest.candidates import Side
from crce.suggest.phrases import LETTERS
from crce.suggest.wordnet import load_wordnet


Verdict = Literal["always", "sometimes", "never", "nonsense"]
CertaintyWord = Literal["Very High", "High", "Normal", "Low", "Very Low"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
MAX_CHARS = 200_000  # of an answer; the largest sensible one is a tenth of it, but some models think aloud
MAX_TEXT = LETTERS  # the schema keeps a small model from writing what cleaning would drop
MAX_REASON = 160
MAX_ITEMS = 60  # of one list
_MAX_REPAIR = 12_000  # json-repair takes quadratic time on some nonsense
_MAX_STARTS = 50  # places where the object may begin

# every word for a certainty that is understood; any other is refused, with its phrase
_SYNONYMS = {
    "Very High": "very high,certain,highest,absolute,extremely high,very certain,definite",
    "High": "high,likely,confident,strong",
    "Normal": ",normal,medium,moderate,average,middle",  # also where none is given
    "Low": "low,unlikely,uncertain,unsure,weak,doubtful",
    "Very Low": "very low,lowest,very unlikely,very uncertain,extremely low",
}
_WORDS = {word: name for name, words in _SYNONYMS.items() for word in words.split(",")}
_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_VERDICT = re.compile(rf"\W*({'|'.join(VERDICTS)})\b", re.IGNORECASE)
# the keys of the object that was asked for, with its opening brace if it is there
_LISTS = re.compile(r"(\{\s*)?(?P<rest>[\"'“]?\b(?:corefs?|retains?)[\"'”]?\s*:\s*[\[{])", re.IGNORECASE)
_NUMBERS = re.compile(r"(\{\s*)?(?P<rest>[\"'“]\d{1,3}[\"'”]\s*:\s*[{\"'“])")


class AnswerError(ValueError):
    """An answer that can't be used."""

    def __init__(self, text: str, partial: Any = None) -> None:
        super().__init__(text)
        self.partial = partial  # what could be read all the same, to be used if no better answer comes


def _line(given: object) -> str:
    """A text on one line, without control characters; empty for anything else, and for a text without a letter."""
    text = tidy(given) if isinstance(given, str) else ""
    text = tidy("".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs")))
    return text if any(c.isalnum() for c in text) else ""  # "..." is what a small model copies from a question


def _certainty(given: object) -> str | None:
    """The certainty word for a known word or a slip of one, a number in [0, 1] or a percentage; None for all else."""
    text = fold(str(given)[:40].replace("_", " ")) if given is not None else ""
    known = text if text in _WORDS else likely_slip(text, _WORDS)
    if known is not None:
        return _WORDS[known]
    try:
        share = float(text.rstrip("% ")) / (100 if "%" in text else 1)
    except ValueError:
        return None
    return min(CERTAINTY_WORDS, key=lambda word: abs(CERTAINTY_WORDS[word] - share)) if 0 <= share <= 1 else None


def _phrases(item: object) -> list[object]:
    """An item, or one for each phrase where its text is a list: "kitty, moggy", "tabby / tomcat"."""
    text = _folded(item).get("text", item)
    if not isinstance(text, str):
        return [item]
    parts = re.split(r"\s*[;|\n]\s*|\s+/\s+", text.strip())
    if len(parts) == 1:  # a comma is also in "big, fluffy cat" and "Elizabeth, Queen of England"
        listed = re.split(r",\s*(?:(?:and|or)\s+)?|\s+or\s+", text)
        names = len(listed) > 2 and all(part[:1].isupper() for part in listed)
        nouns = text == text.lower() and all(map(load_wordnet().base_form, listed))
        parts = listed if names or nouns else parts
    if len(parts) == 1:
        return [item]
    return [{**_folded(item), "text": part} if isinstance(item, dict) else part for part in parts if part]


def _verdict(given: object) -> object:
    # the word alone, or at the head of a sentence ("Never, it is a dog"); elsewhere it may be negated
    found = _VERDICT.match(given) if isinstance(given, str) else None
    return found[1].lower() if found else None


Reason = Annotated[
    str,
    BeforeValidator(lambda given: shorten(_line(given), MAX_REASON, placeholder="...")),
    Field(max_length=MAX_REASON),
]


class Proposal(BaseModel):
    """A phrase that a language model proposes."""

    text: Annotated[str, BeforeValidator(_line), Field(min_length=1, max_length=MAX_TEXT)]
    reason: Reason = ""
    certainty: Annotated[CertaintyWord, BeforeValidator(_certainty)] = "Normal"  # last, so that it follows from reason


class Judgement(BaseModel):
    """Whether images of a phrase show the target."""

    reason: Reason = ""
    answer: Annotated[Verdict, BeforeValidator(_verdict)]


Proposals = dict[Side, list[Proposal]]
Entry = TypeVar("Entry", Proposal, Judgement)


def proposals_schema(corefs: int, retains: int) -> dict[str, Any]:
    """The JSON schema of two lists of `Proposal`, with room for that many phrases, without references."""
    items = {"type": "array", "items": _schema(Proposal), "minItems": 1}
    counts = {"corefs": corefs, "retains": retains}
    return _object_schema({name: {**items, "maxItems": min(count, MAX_ITEMS)} for name, count in counts.items()})


def judgements_schema(count: int) -> dict[str, Any]:
    """The JSON schema of the answer about `count` numbered phrases: one `Judgement` for each, by its number.

    An object whose keys are all required can't leave a phrase out or answer twice, which a list can.
    """
    return _object_schema({str(number): _schema(Judgement) for number in range(1, count + 1)})


def parse_proposals(
    text: str, notes: list[str], *, target: str | None = None, most: Mapping[Side, int] | None = None
) -> Proposals:
    """Read the answer `text` to the question for corefs and retains; corrections are added to `notes`.

    The `target` is left out where it is proposed itself, and of each side at most as many phrases as `most` are taken.

    Raises:
        AnswerError: it contains no such lists; or only one of them, and that one is its `partial`.
    """
    value, whole = _object_in(text, _LISTS, notes)
    lists = {str(key).strip().lower().rstrip("s"): items for key, items in value.items()}
    sides: Proposals = {"coref": [], "retain": []}
    for side in sides:
        items = lists.get(side)
        if isinstance(items, dict):  # {"kitty": "High", ...}
            items = [{"text": k, **(v if isinstance(v, dict) else {"certainty": v})} for k, v in items.items()]
        items = items if isinstance(items, list) else []
        # the last entry of a broken object is perhaps cut off, unless it has its last field
        if not whole and side == next(reversed(lists), None) and items and "certainty" not in _folded(items[-1]):
            items = items[:-1]
        items = [phrase for item in items for phrase in _phrases(item)]
        sides[side] = [p for item in items[:MAX_ITEMS] if (p := _read(Proposal, item)) is not None]
        if len(sides[side]) < len(items):
            notes.append(f"{side}s that can't be used are left out: {len(items) - len(sides[side])}")
    own = fold(target or "")
    others: Proposals = {side: [p for p in proposed if fold(p.text) != own] for side, proposed in sides.items()}
    if same := sum(len(sides[side]) - len(others[side]) for side in sides):
        notes.append(f"the target itself is left out: {same}")
    others = {side: proposed[: (most or {}).get(side, MAX_ITEMS)] for side, proposed in others.items()}
    partial = others if any(others.values()) else None
    if repeated := [f"{side}s" for side in sides if sides[side] and not others[side]]:
        raise AnswerError(f"its {' and '.join(repeated)} only repeat the target. Write other phrases", partial)
    if partial is None:
        raise AnswerError('it proposes no phrase. Write the object {"corefs": [...], "retains": [...]}')
    if empty := [side for side in sides if not sides[side]]:
        why = f"it contains no {empty[0]}s. Write both lists; if your answer was cut off, write fewer phrases"
        raise AnswerError(why, partial)
    return others


def parse_judgements(text: str, notes: list[str], *, count: int) -> dict[int, Judgement]:
    """The judgement of each number from 1 in the answer about `count` phrases; the rest is as in `parse_proposals`.

    Raises:
        AnswerError: numbers are missing (those there are its `partial`), or there is none.
    """
    value, _ = _object_in(text, _NUMBERS, notes)
    numbers = range(1, count + 1)
    judgements = {n: judgement for n in numbers if (judgement := _read(Judgement, value.get(str(n)))) is not None}
    if missing := [str(n) for n in numbers if n not in judgements]:
        why = f"there is no answer for {', '.join(missing)}. Answer one of {', '.join(VERDICTS)} for each number"
        raise AnswerError(why, judgements or None)
    return judgements


def _object_in(text: str, keys: re.Pattern[str], notes: list[str]) -> tuple[dict[str, Any], bool]:
    """The last JSON object with such keys in `text`, else the first one repaired; and whether it was whole."""
    if len(text) > MAX_CHARS:
        notes.append(f"only the first {MAX_CHARS:,} of {len(text):,} characters are read")
    answer = _THINKING.sub(" ", text[:MAX_CHARS]).strip()
    decoder = json.JSONDecoder(strict=False)  # takes line breaks and other control characters within strings
    found, end = None, 0
    for start in islice(keys.finditer(answer), _MAX_STARTS):
        if start[1] and start.start() >= end:
            try:  # the last one counts: drafts and examples come first
                found, end = decoder.raw_decode(answer, start.start())
            except (ValueError, RecursionError):
                continue
    if found is not None:
        return found, True
    first = keys.search(answer)
    if first is None:
        begins = repr(tidy(answer[:400])[:80]) if answer else "with nothing"
        raise AnswerError(f"it is not the JSON object that was asked for; it begins {begins}")
    import json_repair

    broken = "{" + answer[first.start("rest") :][:_MAX_REPAIR]
    try:
        repaired: Any = json_repair.loads(broken, skip_json_loads=True)
    except (ValueError, RecursionError):
        repaired = None
    # a list is two objects, or an object and a stray bracket
    objects = [item for item in (repaired if isinstance(repaired, list) else [repaired]) if isinstance(item, dict)]
    if not objects:
        raise AnswerError("its JSON is broken beyond repair. Write valid JSON")
    notes.append("the JSON was broken or cut off and is repaired; its whole entries are read")
    return objects[0], False


def _read(model: type[Entry], item: object) -> Entry | None:
    try:
        bare = "text" if model is Proposal else "answer"  # some answer with the word alone
        return model.model_validate(_folded(item) or {bare: item})
    except ValidationError:
        return None


def _folded(item: object) -> dict[str, Any]:
    return {fold(str(key)): value for key, value in item.items()} if isinstance(item, dict) else {}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a flat model, without what only costs tokens."""
    fields = model.model_json_schema()["properties"]
    costly = ("title", "default")
    return _object_schema({name: {k: v for k, v in f.items() if k not in costly} for name, f in fields.items()})


def _object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    closed = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": dict(properties), **closed}
