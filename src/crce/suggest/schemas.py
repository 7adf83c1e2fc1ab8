"""What a language model answers: the schema it is given, and how its text is read.

A text that follows the schema is taken as it is. Any other is repaired as far as its meaning is plain (prose or a
code fence around the JSON, a cut-off end, "Hihg" for "High", control characters, lists that are too long), and every
repair is noted. A text that says nothing usable is an AnswerError, whose words tell the model what to do better.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from crce.concepts.concept_set import fold, text_fault, tidy
from crce.suggest.phrases import LETTERS
from crce.suggest.repair import (
    AnswerError,
    CertaintyWord,
    Parsed,
    Shape,
    certainty_word,
    cleaned,
    object_in,
    shortened,
    texts,
    unwrapped,
)


Verdict = Literal["always", "sometimes", "never", "nonsense"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

MAX_TEXT = LETTERS  # the schema stops a small model from writing what cleaning would drop
MAX_REASON = 160
MAX_ITEMS = 60  # of one list

_LISTS = Shape(
    in_text=re.compile(r"[\"'“]?\b(corefs?|retains?)[\"'”]?\s*:\s*\[", re.IGNORECASE),
    key=re.compile("(corefs?|retains?)", re.IGNORECASE),
)
_NUMBERS = Shape(
    in_text=re.compile(r"[\"'“]\d{1,3}[\"'”]\s*:\s*[{\"'“]"),  # quotes needed: prose says "these 2: {" too
    key=re.compile(r"\d{1,3}"),
)


def _phrase(value: str) -> str:
    if not any(c.isalnum() for c in value):  # "..." is what a small model copies from a question's example
        raise ValueError("holds no letter")
    return _line(value)


def _line(value: str) -> str:
    if value.strip() and (fault := text_fault(value)):
        raise ValueError(fault)
    return tidy(value)


Phrase = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_phrase)]
Line = Annotated[str, Field(max_length=MAX_REASON), AfterValidator(_line)]


class Proposal(BaseModel):
    """A phrase that a language model proposes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: Phrase
    reason: Line
    certainty: CertaintyWord  # after the reason, so that it is written with the reason in view


class Proposals(BaseModel):
    """The two lists that a language model proposes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    corefs: list[Proposal] = Field(max_length=MAX_ITEMS)
    retains: list[Proposal] = Field(max_length=MAX_ITEMS)


class Judgement(BaseModel):
    """Whether pictures of a phrase show the target."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Line
    answer: Verdict


Entry = TypeVar("Entry", Proposal, Judgement)


def proposals_schema(corefs: int, retains: int) -> dict[str, Any]:
    """The JSON schema of `Proposals` with room for that many phrases, without references."""
    item = _schema(Proposal)
    lists = {
        side: {"type": "array", "items": item, "minItems": 1, "maxItems": min(count, MAX_ITEMS)}
        for side, count in (("corefs", corefs), ("retains", retains))
    }
    return _object_schema(lists)


def judgements_schema(count: int) -> dict[str, Any]:
    """The JSON schema of the answer about `count` numbered phrases: one entry for each, by its number.

    An object whose keys are all required can't leave a phrase out or answer twice, which a list can.
    """
    return _object_schema({str(number): _schema(Judgement) for number in range(1, count + 1)})


def parse_proposals(text: str, cut_off: bool = False) -> Parsed[Proposals]:
    """Read the answer to the question for corefs and retains.

    Args:
        text: the answer.
        cut_off: whether it reached its largest length. If it is whole JSON all the same, it was closed by force, and
            what that made up is left out.

    Raises:
        AnswerError: it holds no such lists; or only one of them, and that one is its `partial`.
    """
    notes: Counter[str] = Counter()
    text = shortened(text, notes)
    try:
        proposals = Proposals.model_validate_json(text)
        if cut_off:
            proposals = _unforced_proposals(proposals, notes)
    except (ValidationError, RecursionError):
        value, cut = object_in(text, _LISTS, notes)
        value = unwrapped(value, _LISTS)
        by_side: dict[str, Any] = {}
        for key, items in value.items():
            if _LISTS.key.fullmatch(key.strip()):
                by_side[key.strip().lower().removesuffix("s") + "s"] = items
        last = list(by_side)[-1] if by_side else None
        proposals = Proposals(
            corefs=_proposals(by_side.get("corefs"), "corefs", cut and last == "corefs", notes),
            retains=_proposals(by_side.get("retains"), "retains", cut and last == "retains", notes),
        )
    if not proposals.corefs and not proposals.retains:
        raise AnswerError('it proposes no phrase. Write the object {"corefs": [...], "retains": [...]}')
    empty = next((side for side in ("corefs", "retains") if not getattr(proposals, side)), None)
    if empty is not None:
        notes[f"no {empty} are proposed"] += 1
        why = f"it holds no {empty}. Write both lists; if your answer was cut off, write fewer phrases"
        raise AnswerError(why, Parsed(proposals, texts(notes)))
    return Parsed(proposals, texts(notes))


def parse_judgements(text: str, cut_off: bool = False, *, count: int) -> Parsed[dict[int, Judgement]]:
    """Read the answer about `count` numbered phrases.

    Args:
        text: the answer.
        cut_off: as for `parse_proposals`.
        count: how many phrases were asked about.

    Returns:
        The judgement of each number from 1.

    Raises:
        AnswerError: numbers are missing (those there are its `partial`), or there is none.
    """
    notes: Counter[str] = Counter()
    text = shortened(text, notes)
    judgements: dict[int, Judgement] = {}
    try:
        given = TypeAdapter(dict[str, Judgement]).validate_json(text)
        if cut_off:
            given = dict(zip(given, _unforced(list(given.values()), notes), strict=False))
        judgements = {int(key): judgement for key, judgement in given.items() if key.isdecimal()}
    except (ValidationError, RecursionError):
        value, _ = object_in(text, _NUMBERS, notes)
        for key, item in unwrapped(value, _NUMBERS).items():
            judgement = _judgement(item)
            if judgement is None:
                notes["an entry without one of the four words is left out"] += 1
            elif key.strip().isdecimal():
                judgements[int(key)] = judgement
    for number in [number for number in judgements if not 1 <= number <= count]:
        del judgements[number]
        notes["an entry for a number that was not asked is left out"] += 1
    missing = [str(number) for number in range(1, count + 1) if number not in judgements]
    if missing:
        why = f"there is no answer for {', '.join(missing)}. Answer one of {', '.join(VERDICTS)} for each number"
        raise AnswerError(why, Parsed(judgements, texts(notes)) if judgements else None)
    return Parsed(judgements, texts(notes))


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a flat model, without the titles and descriptions that only cost tokens."""
    fields = model.model_json_schema()["properties"]
    return _object_schema({name: {k: v for k, v in f.items() if k != "title"} for name, f in fields.items()})


def _object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _unforced_proposals(proposals: Proposals, notes: Counter[str]) -> Proposals:
    kept = _unforced([*proposals.corefs, *proposals.retains], notes)
    corefs = len(proposals.corefs)
    return Proposals(corefs=kept[:corefs], retains=kept[corefs:])


def _unforced(entries: list[Entry], notes: Counter[str]) -> list[Entry]:
    """The entries before the one that was being written when the answer reached its largest length.

    Those after it were made up to satisfy the schema: they have no reason.
    """
    kept = list(entries)
    while kept and not kept[-1].reason:
        kept.pop()
    kept = kept[:-1]
    notes[f"the answer reached its largest length, its last entries ({len(entries) - len(kept)}) are left out"] += 1
    return kept


def _proposals(items: object, side: str, cut: bool, notes: Counter[str]) -> list[Proposal]:
    if isinstance(items, dict):  # {"kitty": "High", ...}
        items = [v if isinstance(v, dict) and "text" in v else {"text": k, "certainty": v} for k, v in items.items()]
        notes[f"{side} is a mapping, read as a list"] += 1
    if not isinstance(items, list):
        return []
    if cut and items and not (isinstance(items[-1], dict) and "certainty" in items[-1]):
        items = items[:-1]
        notes[f"the last of the {side} is cut off and left out"] += 1
    if len(items) > MAX_ITEMS:
        notes[f"only the first {MAX_ITEMS} of {len(items):,} {side} are read"] += 1
    read = [_proposal(item, side, notes) for item in items[:MAX_ITEMS]]
    return [proposal for proposal in read if proposal is not None]


def _proposal(item: object, side: str, notes: Counter[str]) -> Proposal | None:
    fields = {fold(str(k)): v for k, v in item.items()} if isinstance(item, dict) else {"text": item}
    text = next((fields[k] for k in ("text", "phrase", "name", "concept", "prompt") if k in fields), None)
    if not isinstance(text, str):
        notes[f"an entry of the {side} without a text is left out"] += 1
        return None
    text = cleaned(text, notes)
    if not any(c.isalnum() for c in text) or len(text) > MAX_TEXT:
        what = f"is longer than {MAX_TEXT} characters" if len(text) > MAX_TEXT else "holds no letter"
        notes[f"one of the {side} {what}, left out"] += 1
        return None
    reason = fields.get("reason")
    reason = cleaned(reason, notes) if isinstance(reason, str) else ""
    if len(reason) > MAX_REASON:
        reason = reason[: MAX_REASON - 3] + "..."
        notes["a long reason is shortened"] += 1
    return Proposal(text=text, reason=reason, certainty=certainty_word(fields.get("certainty"), notes))


def _judgement(item: object) -> Judgement | None:
    fields = {fold(str(k)): v for k, v in item.items()} if isinstance(item, dict) else {"answer": item}
    given = fields.get("answer")
    # the word alone, or at the head of a sentence ("Never, it is a dog"); elsewhere it may be denied
    word = re.match(rf"\W*({'|'.join(VERDICTS)})\b", given, re.IGNORECASE) if isinstance(given, str) else None
    if word is None:
        return None
    reason = fields.get("reason")
    reason = cleaned(reason, Counter()) if isinstance(reason, str) else ""
    return Judgement(reason=reason[:MAX_REASON], answer=cast(Verdict, word[1].lower()))
