"""Corefs and retains from a language model, whoever serves it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crce.concepts.concept_set import CERTAINTY_WORDS, fold
from crce.llm import Chat
from crce.suggest.candidates import Candidate, Request, Side
from crce.suggest.prompts import propose_messages
from crce.suggest.repair import AnswerError, Parsed
from crce.suggest.schemas import MAX_ITEMS, Proposal, Proposals, parse_proposals, proposals_schema
from crce.suggest.structured_query import RETRIES, ask, question
from crce.suggest.transcript import Exchange, Purpose


class LLMSuggester:
    """Asks a language model for more phrases than are wanted, so that there is something to choose from.

    Args:
        chat: the language model.
        prompts: folder of own prompts; None reads CRCE_PROMPTS, else the bundled ones are used.
        retries: how often to ask again when an answer can't be read.
        seed: of the model's answers.

    Attributes:
        name: "provider:model", also the source of each candidate.
        chat: the language model.
        retries: how often to ask again when an answer can't be read.
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
        """Raw candidates, most certain first; rejected phrases (`request.avoid`) are left out.

        Raises:
            SuggestError: the model can't be reached, refuses, or gives no answer that can be read.
        """
        return ask_for_candidates(
            self.chat, request, self._prompts, self.exchanges, retries=self.retries, seed=self._seed
        )


def ask_for_candidates(
    chat: Chat,
    request: Request,
    prompts: Path | str | None,
    exchanges: list[Exchange],
    *,
    kind: Purpose = "propose",
    retries: int = RETRIES,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Candidate]:
    """Ask `chat` once for the candidates of a request, most certain first.

    Raises:
        SuggestError: the model can't be reached, refuses, or gives no answer that can be read.
    """
    corefs, retains = _asked(request.corefs), _asked(request.retains)
    proposals: Proposals = ask(
        chat,
        question(chat, partial(propose_messages, request, corefs, retains), prompts),
        proposals_schema(corefs, retains),
        lambda text, cut_off: _beside_target(parse_proposals(text, cut_off), request.target),
        kind=kind,
        about=request.target,
        exchanges=exchanges,
        retries=retries,
        max_tokens=300 + 70 * (corefs + retains),
        temperature=temperature,
        seed=seed,
    )
    avoid = {(side, fold(text)) for side, text in request.avoid}
    sides: tuple[tuple[Side, list[Proposal]], ...] = (("coref", proposals.corefs), ("retain", proposals.retains))
    candidates = [
        Candidate(
            text=proposal.text,
            side=side,
            certainty=CERTAINTY_WORDS[proposal.certainty],
            source=f"{chat.provider}:{chat.model}",
            reason=proposal.reason or "no reason given",
        )
        for side, side_proposals in sides
        for proposal in side_proposals
        if (side, fold(proposal.text)) not in avoid
    ]
    return sorted(candidates, key=lambda candidate: -candidate.certainty)


def _beside_target(parsed: Parsed[Proposals], target: str) -> Parsed[Proposals]:
    """What was proposed besides the target itself, which small models like to repeat.

    Raises:
        AnswerError: nothing on a side.
    """
    own = fold(target)
    corefs = [proposal for proposal in parsed.value.corefs if fold(proposal.text) != own]
    retains = [proposal for proposal in parsed.value.retains if fold(proposal.text) != own]
    same = len(parsed.value.corefs) + len(parsed.value.retains) - len(corefs) - len(retains)
    if not same:
        return parsed
    beside = Parsed(
        Proposals(corefs=corefs, retains=retains), (*parsed.notes, f"the target itself is left out: {same}")
    )
    if empty := [side for side, kept in (("corefs", corefs), ("retains", retains)) if not kept]:
        why = f"its {' and '.join(empty)} only repeat the target. Write other phrases"
        raise AnswerError(why, beside if corefs or retains else None)
    return beside


def _asked(wanted: int) -> int:
    """How many phrases to ask for: half as many again, since some are doubled, wrong or too near to each other."""
    return min(wanted + max(4, wanted // 2), MAX_ITEMS)
