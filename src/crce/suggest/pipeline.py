"""A concept set in the making: candidates are cleaned, verified, grounded, ranked and selected, each with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crce.concepts import ConceptSet, Related
from crce.errors import SuggestError
from crce.suggest.candidates import SIDES, Candidate, Request, Side
from crce.suggest.cleaning import clean
from crce.suggest.mmr import select
from crce.suggest.record import Decided, Score, Settings


if TYPE_CHECKING:
    from crce.llm import Chat
    from crce.suggest.embedding import Embedder
    from crce.suggest.grounding import Grounded
    from crce.suggest.ranking import Ranker
    from crce.suggest.transcript import Exchange

# Grounding takes time for every phrase: as many as are wanted, and a quarter more for those it turns down.
GROUNDED_SHARE = 1.25


class Draft:
    """Candidates on their way into a concept set; the steps are to be called in the order in which they stand here.

    Attributes:
        request: what was asked.
        settings: how many phrases are wanted, and what is done with them.
        candidates: what is still in.
        decisions: what became of those that are not, and after `select` of all.
        verified: answers to the second questions.
        grounding: what the text-to-image model makes of the phrases.
        scores: worth of the phrases by earlier decisions of a person.
    """

    def __init__(
        self, request: Request, settings: Settings, proposed: Iterable[Candidate], embedder: Embedder
    ) -> None:
        self.request = request
        self.settings = settings
        self.candidates = list(proposed)
        self.decisions: list[Decided] = []
        self.verified: list[dict[str, Any]] = []
        self.grounding: dict[str, Grounded] = {}
        self.scores: list[Score] = []
        self._embedder = embedder
        self._priority: dict[tuple[Side, str], float] = {}

    def clean(self) -> None:
        """Normalise, deduplicate, and drop what contradicts itself."""
        self.candidates, dropped = clean(self.candidates, self.request, self._embedder)
        for item in dropped:
            self._drop(item.candidate, item.reason)

    def verify(self, chat: Chat, exchanges: list[Exchange]) -> None:
        """Ask a second time about every phrase; the answers become the certainties.

        Args:
            chat: the language model.
            exchanges: where every question and answer is appended.

        Raises:
            SuggestError: the language model can't be reached, or answers nonsense.
        """
        from crce.suggest.verification import verify

        settings = self.settings
        if settings.verify is None or not self.candidates:
            return
        answers = verify(
            self.candidates,
            self.request,
            chat,
            method=settings.verify,
            prompts=settings.prompts,
            exchanges=exchanges,
            seed=settings.seed,
        )
        self.candidates = []
        for answer in answers:
            candidate = replace(answer.candidate, certainty=round(answer.certainty, 2))
            self.verified.append(
                {
                    "text": candidate.text,
                    "side": candidate.side,
                    "stated": answer.candidate.certainty,
                    "certainty": candidate.certainty,
                    "answer": answer.answer,
                    "reason": answer.reason,
                }
            )
            if answer.dropped:
                self._drop(candidate, answer.reason)
            else:
                self.candidates.append(_with_note(candidate, answer.reason))
        self.candidates.sort(key=lambda c: -c.certainty)

    def ground(self, measure: Callable[[list[str]], dict[str, Grounded]]) -> None:
        """Ask the text-to-image model about the foremost phrases; the others can't be chosen.

        Args:
            measure: from phrases to what the model makes of them, as `crce.suggest.grounding.ground` does.
        """
        from crce.suggest.grounding import apply_grounding

        places = {side: math.ceil(GROUNDED_SHARE * self._wanted(side)) for side in SIDES}
        foremost = []
        for candidate in self.candidates:
            if places[candidate.side]:
                places[candidate.side] -= 1
                foremost.append(candidate)
            else:
                self._drop(candidate, "enough others are more certain, so the model was not asked about it")
        self.grounding = measure([c.text for c in foremost])
        self.candidates = []
        for noted in apply_grounding(foremost, self.grounding):
            if noted.entangled:
                self._drop(noted.candidate, noted.note)
                continue
            candidate = _with_note(noted.candidate, noted.note)
            self.candidates.append(candidate)
            self._priority[candidate.side, candidate.text] = noted.priority

    def rank(self, ranker: Ranker) -> None:
        """Let what a person decided before count as much as the certainty."""
        from crce.suggest.ranking import Features

        similarity = self._embedder.similarity([c.text for c in self.candidates], [self.request.target])
        for candidate, (cosine,) in zip(self.candidates, similarity.tolist(), strict=True):
            grounded = self.grounding.get(candidate.text)
            closeness = None if grounded is None else grounded.closeness
            features = Features(candidate.side, candidate.certainty, candidate.source, cosine, closeness)
            self.scores.append(Score(text=candidate.text, side=candidate.side, score=round(ranker.score(features), 4)))

    def select(self) -> ConceptSet:
        """Choose what is trained and held out, and make the concept set of it.

        Raises:
            SuggestError: nothing is left to choose from.
        """
        if not self.candidates:
            raise SuggestError(_nothing_left(self.request, self.decisions))
        settings, learned = self.settings, {(s.side, s.text): s.score for s in self.scores}

        def score(candidate: Candidate) -> float:
            place = candidate.side, candidate.text
            own = self._priority.get(place, candidate.certainty)
            return (own + learned[place]) / 2 if place in learned else own

        chosen, left_over = select(
            self.candidates,
            self.request,
            self._embedder,
            corefs=settings.corefs,
            retains=settings.retains,
            held_out=settings.held_out,
            diversity=settings.diversity,
            score=score,
        )
        sides: dict[Side, list[Related]] = {side: [] for side in SIDES}
        selected = []
        for candidate, held_out in ((c.candidate, c.held_out) for c in chosen):
            sides[candidate.side].append(Related(candidate.text, candidate.certainty, candidate.source, held_out))
            selected.append(_decided(candidate, "held-out" if held_out else "train", candidate.reason))
        self.decisions[:0] = selected
        for candidate in left_over:
            self._drop(candidate, "there are enough others that are more certain or less alike")
        return ConceptSet(
            self.request.target,
            self.request.kind,
            corefs=tuple(sides["coref"]),
            retains=tuple(sides["retain"]),
        )

    def _wanted(self, side: Side) -> int:
        return (self.settings.corefs if side == "coref" else self.settings.retains) + self.settings.held_out

    def _drop(self, candidate: Candidate, reason: str) -> None:
        self.decisions.append(_decided(candidate, "dropped", reason))


def _decided(candidate: Candidate, outcome: Any, reason: str) -> Decided:
    return Decided(
        text=candidate.text,
        side=candidate.side,
        outcome=outcome,
        certainty=candidate.certainty,
        reason=reason,
        source=candidate.source,
    )


def _with_note(candidate: Candidate, note: str) -> Candidate:
    return replace(candidate, reason="; ".join(part for part in (candidate.reason, note) if part))


def _nothing_left(request: Request, decisions: list[Decided]) -> str:
    cure = "Name the kind (--kind), choose another suggester (--suggester), or write your own set."
    if not decisions:
        return f"Nothing was proposed for '{request.target}'. {cure}"
    last = decisions[-1]  # what came furthest says most about why nothing is left
    first = f"{last.text!r}: {last.reason}"
    return f"Of {len(decisions)} phrases proposed for '{request.target}' none can be used, e.g. {first}. {cure}"
