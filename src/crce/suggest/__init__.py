"""Suggestion of corefs and retains: from a lexicon or language models, grounded in a model, reviewed by a person."""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names, make_callable


if TYPE_CHECKING:
    from crce.suggest.candidates import Candidate, Request, Suggester
    from crce.suggest.grounding import ground
    from crce.suggest.memory import Decision, Memory
    from crce.suggest.record import Record, read_record, write_record
    from crce.suggest.resolve import Resolved, resolve_concept, resolve_concepts
    from crce.suggest.review import Review
    from crce.suggest.suggesters import load_suggester
    from crce.suggest.suggestion import Suggestion, replay, suggest

__all__ = ["Candidate", "Decision", "Memory", "Record", "Request", "Resolved", "Review", "Suggester", "Suggestion"]
__all__ += ["ground", "load_suggester", "read_record", "replay", "resolve_concept", "resolve_concepts", "suggest"]
__all__ += ["write_record"]

__getattr__ = lazy_names(__name__)

make_callable(__name__)  # crce.suggest(...) is suggest(...) of this package
