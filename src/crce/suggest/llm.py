"""Corefs and retains from a language model, of any provider."""

from __future__ import annotations

from pathlib import Path

from crce.concepts.concept_set import CERTAINTY_WORDS, fold
from crce.llm import Chat
from crce.suggest.candidates import Candidate, Request
from crce.suggest.prompts import propose_messages
from crce.suggest.schemas import MAX_ITEMS, AnswerError, Proposals, parse_proposals, proposals_schema
from crce.suggest.structured_query import RETRIES, Exchange, ask


class LLMSuggester:
    """Asks a language model for more phrases than are wanted, so that there is something to choose from.

    Args:
        chat: the language model.
        prompts: folder of own prompts; None reads CRCE_PROMPTS, else the bundled ones are used.
        retries: how often to ask again if an answer can't be read.
        seed: of the model's answers.

    Attributes:
        name: "provider:model", also the source of each candidate.
        chat: the language model.
        retries: how often to ask again if an answer can't be read.
        exchanges: every question and answer so far.
    """

    def __init__(self, chat: Chat, prompts: Path | str | None = None, retries: int = RETRIES, seed: int = 0) -> None:
        self.name = f"{chat.provider}:{chat.model}"
        self.exchanges: list[Exchange] = []
        self.chat = chat
        self.retries = retries
        self._prompts = prompts
        self._seed = seed

    def propose(self, request: Request) -> list[Candidate]:
        """Raw candidates, the most certain first; rejected phrases (`request.avoid`) are left out.

        Raises:
            SuggestError: the model can't be reached, refuses, or gives no answer that can be read.
        """

        def parse(text: str, cut_off: bool, notes: list[str]) -> Proposals:
            return _without_target(parse_proposals(text, cut_off, notes), request.target, notes)

        # half as many again as are wanted: some are repeated, wrong or too similar to each other
        corefs, retains = (min(n + max(4, n // 2), MAX_ITEMS) for n in (request.corefs, request.retains))
        proposals = ask(
            self.chat,
            propose_messages(request, corefs, retains, self._prompts),
            proposals_schema(corefs, retains),
            parse,
            kind="propose",
            about=request.target,
            exchanges=self.exchanges,
            retries=self.retries,
            max_tokens=300 + 70 * (corefs + retains),
            seed=self._seed,
        )
        avoid = {(side, fold(text)) for side, text in request.avoid}
        candidates = [
            Candidate(p.text, side, CERTAINTY_WORDS[p.certainty], self.name, p.reason or "no reason given")
            for side, proposed in proposals.items()
            for p in proposed
            if (side, fold(p.text)) not in avoid
        ]
        return sorted(candidates, key=lambda candidate: -candidate.certainty)


def _without_target(proposals: Proposals, target: str, notes: list[str]) -> Proposals:
    """The proposals except the target itself, which small models like to repeat.

    Raises:
        AnswerError: nothing is left on a side.
    """
    own = fold(target)
    others = {side: [p for p in proposed if fold(p.text) != own] for side, proposed in proposals.items()}
    if same := sum(map(len, proposals.values())) - sum(map(len, others.values())):
        notes.append(f"the target itself is left out: {same}")
    if empty := [f"{side}s" for side, kept in others.items() if not kept]:
        why = f"its {' and '.join(empty)} only repeat the target. Write other phrases"
        raise AnswerError(why, others if any(others.values()) else None)
    return others
