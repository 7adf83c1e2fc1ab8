"""Who proposes corefs and retains: a lexicon, language models, and the person who reviews them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from crce.suggest.candidates import Candidate, Example, Request, Suggester
    from crce.suggest.grounding import Grounded, ground
    from crce.suggest.memory import Decision, Memory
    from crce.suggest.ranking import Ranker
    from crce.suggest.record import Record, read_record, write_record
    from crce.suggest.review import Review
    from crce.suggest.suggesters import load_suggester
    from crce.suggest.suggestion import Suggestion, replay, suggest

__all__ = [
    "Candidate",
    "Decision",
    "Example",
    "Grounded",
    "Memory",
    "Ranker",
    "Record",
    "Request",
    "Review",
    "Suggester",
    "Suggestion",
    "ground",
    "load_suggester",
    "read_record",
    "replay",
    "suggest",
    "write_record",
]

# Loaded on first use, so that importing this package imports none of the libraries behind it.
_HOME = {
    "Candidate": "candidates",
    "Decision": "memory",
    "Example": "candidates",
    "Grounded": "grounding",
    "Memory": "memory",
    "Ranker": "ranking",
    "Record": "record",
    "Request": "candidates",
    "Review": "review",
    "Suggester": "candidates",
    "Suggestion": "suggestion",
    "ground": "grounding",
    "load_suggester": "suggesters",
    "read_record": "record",
    "replay": "suggestion",
    "suggest": "suggestion",
    "write_record": "record",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
