"""The steps from candidates to a concept set: clean, verify, ground, rank, select, each with a reason per phrase."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from crce.concepts import ConceptSet, Related
from crce.errors import SuggestError
from crce.suggest.candidates import SIDES, Candidate, Outcome, Request, Side
from crce.suggest.mmr import select
from crce.suggest.phrases import clean
from crce.suggest.record import Score, SuggestionSettings


if TYPE_CHECKING:
    from crce.demo.embedding import Embedder
    from crce.suggest.grounding import Grounded
    from crce.suggest.ranking import Ranker
    from crce.suggest.verification import SecondOpinion

# Grounding takes time for every phrase: as many as are wanted, and a quarter more for those that it drops.
GROUNDED_SHARE = 1.25


class Pipeline:
    """Candidates on their way into a concept set; the steps are called in the order in which they are defined.

    Attributes:
        request: what the candidates were proposed for.
        settings: how many phrases are wanted.
        candidates: those not dropped so far.
        decisions: the outcome of those that are dropped, and after `select` of all.
        verified: answers to the second questions.
        grounding: what the text-to-image model generates for the phrases.
        scores: scores of the phrases by earlier decisions of a person.
    """

    def __init__(
        self, request: Request, settings: SuggestionSettings, proposed: Iterable[Candidate], embedder: Embedder
    ) -> None:
        self.request = request
        self.settings = settings
        self.candidates = list(proposed)
        self.decisions: list[Candidate] = []
        self.verified: list[dict[str, Any]] = []
        self.grounding: dict[str, Grounded] = {}
        self.scores: list[Score] = []
        self._embedder = embedder

    def clean(self) -> None:
        """Normalise, deduplicate, and drop contradictions."""
        self.candidates, dropped = clean(self.candidates, self.request, self._embedder)
        for candidate in dropped:
            self._decide(candidate, "dropped")

    def verify(self, ask: Callable[[list[Candidate]], list[SecondOpinion]]) -> None:
        """Replace the certainties by those of a second question, and drop the candidates that it contradicts.

        Args:
            ask: from candidates to opinions, as `crce.suggest.verification.verify` does.
        """
        answers = ask(self.candidates)
        asked, self.candidates = self.candidates, []
        for stated, (certainty, answer, reason) in zip(asked, answers, strict=True):
            candidate = replace(stated, certainty=round(certainty, 2))
            self.verified.append(
                {
                    "text": candidate.text,
                    "side": candidate.side,
                    "stated": stated.certainty,
                    "certainty": candidate.certainty,
                    "answer": answer,
                    "reason": reason,
                }
            )
            if certainty == 0:
                self._decide(candidate, "dropped", reason)
            else:
                self.candidates.append(candidate.noted(reason))
        self.candidates.sort(key=lambda c: -c.certainty)

    def ground(self, measure: Callable[[list[str]], dict[str, Grounded]]) -> None:
        """Measure what the text-to-image model generates for the most certain phrases, and drop the others.

        Args:
            measure: from phrases to measurements, as `crce.suggest.grounding.ground` does.
        """
        from crce.suggest.grounding import apply_grounding

        settings = self.settings
        wanted = {"coref": settings.corefs + settings.held_out, "retain": settings.retains + settings.held_out}
        places = {side: math.ceil(GROUNDED_SHARE * count) for side, count in wanted.items()}
        foremost = []
        for candidate in self.candidates:
            if places[candidate.side]:
                places[candidate.side] -= 1
                foremost.append(candidate)
            else:
                self._decide(candidate, "dropped", "enough others are more certain, so it was not measured")
        self.grounding = measure([c.text for c in foremost])
        self.candidates = []
        for candidate in apply_grounding(foremost, self.grounding):
            if candidate.outcome == "dropped":
                self._decide(candidate, "dropped")
            else:
                self.candidates.append(candidate)

    def rank(self, ranker: Ranker) -> None:
        """Let earlier decisions of a person count as much as the certainty."""
        similarity = self._embedder.similarity([c.text for c in self.candidates], [self.request.target])
        for candidate, (cosine,) in zip(self.candidates, similarity.tolist(), strict=True):
            score = round(ranker.score(replace(candidate, similarity=cosine)), 4)
            self.scores.append(Score(text=candidate.text, side=candidate.side, score=score))

    def select(self) -> ConceptSet:
        """Choose the training and the held-out phrases, and make the concept set of them.

        Raises:
            SuggestError: no candidate is left.
        """
        from crce.suggest.grounding import priority

        if not self.candidates:
            raise SuggestError(self._nothing_left())
        learned = {(s.side, s.text): s.score for s in self.scores}

        def score(candidate: Candidate) -> float:
            own = priority(candidate)
            return (own + learned.get((candidate.side, candidate.text), own)) / 2

        settings = self.settings
        chosen, left_over = select(
            self.candidates,
            self._embedder,
            corefs=settings.corefs,
            retains=settings.retains,
            held_out=settings.held_out,
            diversity=settings.diversity,
            score=score,
        )
        sides: dict[Side, list[Related]] = {side: [] for side in SIDES}
        dropped, self.decisions = self.decisions, []
        for c in chosen:
            sides[c.side].append(Related(c.text, c.certainty, c.source, held_out=c.outcome == "held-out"))
            self._decide(c, c.outcome)
        self.decisions += dropped
        for candidate in left_over:
            self._decide(candidate, "dropped", "there are enough others that are more certain or less similar")
        target, kind = self.request.target, self.request.kind
        return ConceptSet(target, kind, corefs=tuple(sides["coref"]), retains=tuple(sides["retain"]))

    def _decide(self, candidate: Candidate, outcome: Outcome | None, reason: str | None = None) -> None:
        reason = candidate.reason if reason is None else reason
        c = candidate
        self.decisions.append(Candidate(c.text, c.side, c.certainty, c.source, reason, outcome=outcome))

    def _nothing_left(self) -> str:
        target, decisions = self.request.target, self.decisions
        cure = "Name the kind (--kind), choose another suggester (--suggester), or write your own set."
        if not decisions:
            return f"Nothing was proposed for '{target}'. {cure}"
        last = decisions[-1]  # the one that came furthest says most about why nothing is left
        first = f"{last.text!r}: {last.reason}"
        return f"Of {len(decisions)} phrases proposed for '{target}' none can be used, e.g. {first}. {cure}"
