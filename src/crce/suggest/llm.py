"""Corefs and retains from a language model, of any provider."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from crce.concepts.concept_set import CERTAINTY_WORDS, tidy
from crce.errors import SuggestError
from crce.files import text_hash
from crce.llm import Chat, Message
from crce.suggest.candidates import Candidate, Request
from crce.suggest.prompts import propose_messages
from crce.suggest.schemas import MAX_CHARS, MAX_ITEMS, AnswerError, parse_proposals, proposals_schema


T = TypeVar("T")
Exchange = dict[str, Any]  # a question to a language model with its answer, as a record stores it

RETRIES = 2
_TEMPERATURE = 0.8  # of a repeated question: without chance, a small model repeats its bad answer
_LONGEST = 8000  # tokens; an answer that is cut off may be twice as long the next time, up to this


class UnreadableAnswer(SuggestError):
    """A language model answered, but nothing usable, however often it was asked."""


class LLMSuggester:
    """Asks a language model for more phrases than are wanted, so that there is something to choose from.

    An answer that can't be read is asked for again, `retries` times. `exchanges` are all questions and answers so far.
    """

    def __init__(self, chat: Chat, prompts: Path | str | None = None, retries: int = RETRIES, seed: int = 0) -> None:
        self.name = f"{chat.provider}:{chat.model}"
        self.chat, self.prompts, self.retries, self.seed = chat, prompts, max(retries, 0), seed
        self.exchanges: list[Exchange] = []

    def propose(self, request: Request) -> list[Candidate]:
        """Raw candidates, the most certain first; rejected phrases (`request.avoid`) are left out.

        Raises:
            SuggestError: the model can't be reached, refuses, or gives no answer that can be read.
        """
        # half as many again as are wanted: some are repeated, wrong or too similar to each other
        corefs, retains = (min(n + max(4, n // 2), MAX_ITEMS) for n in request.wanted.values())
        messages = propose_messages(request, corefs, retains, self.prompts)
        parse = partial(parse_proposals, target=request.target, most={"coref": corefs, "retain": retains})
        tokens = 300 + 70 * (corefs + retains)
        sides = self.ask("propose", request.target, messages, proposals_schema(corefs, retains), parse, tokens)
        candidates = [
            Candidate(p.text, side, CERTAINTY_WORDS[p.certainty], self.name, p.reason or "no reason given")
            for side, proposals in sides.items()
            for p in proposals
            if request.takes(p.text, side)
        ]
        return sorted(candidates, key=lambda candidate: -candidate.certainty)

    def ask(
        self,
        kind: Literal["propose", "verify"],
        about: str,
        messages: list[Message],
        schema: dict[str, Any],
        parse: Callable[[str, list[str]], T],
        max_tokens: int,
    ) -> T:
        """Ask about a target until `parse` can read the answer; each repeated question says why it could not.

        `parse` is given the answer and a list for its notes, and raises AnswerError. An answer that was cut off may
        have twice as many tokens the next time. If every attempt failed, what could be read of the last answer with
        any content is returned.

        Raises:
            UnreadableAnswer: no answer could be read.
            SuggestError: the model refuses, or can't be reached.
        """
        question, fault = messages, ""
        usable: tuple[T, list[str]] | None = None  # in part, with the notes of its exchange
        for attempt in range(self.retries + 1):
            warmth, seed = _TEMPERATURE if attempt else 0.0, self.seed + attempt
            reply = self.chat.complete(question, schema, max_tokens=max_tokens, temperature=warmth, seed=seed)
            notes: list[str] = []  # how the answer was corrected, or why it could not be used
            content = json.dumps([[message.role, message.content] for message in question])
            self.exchanges.append(
                {
                    "kind": kind,
                    "prompt_hash": text_hash(content)[:16],
                    "messages": [{"role": message.role, "content": message.content} for message in question],
                    "reply": reply.text[:MAX_CHARS],
                    "finish": reply.finish,
                    "prompt_tokens": reply.prompt_tokens,
                    "completion_tokens": reply.completion_tokens,
                    "notes": notes,
                }
            )
            if reply.finish == "refusal":
                notes.append("not used: the model refused to answer")
                said = f" ({tidy(reply.text)[:120]!r})" if reply.text.strip() else ""
                cure = "Use another model, or --suggester lexicon."
                raise SuggestError(f"{self.name} refused to answer about {about!r}{said}. {cure}")
            try:
                return parse(reply.text, notes)
            except AnswerError as error:
                fault = str(error)
                notes.insert(0, f"not used: {fault}")
                if error.partial is not None:
                    usable = error.partial, notes
            if reply.finish == "length":
                max_tokens = max(max_tokens, min(2 * max_tokens, _LONGEST))
            # without the bad answer itself, which a small model would copy
            note = f"An earlier answer can't be used: {fault}. Answer with the one JSON object alone."
            question = [*messages[:-1], Message(messages[-1].role, f"{messages[-1].content}\n\n{note}")]
        if usable is not None:
            value, notes = usable
            notes.append("used after all, no later answer was better")
            return value
        raise UnreadableAnswer(
            f"{self.name} gave no usable answer about {about!r} in {self.retries + 1} tries: {fault}. "
            "Use a larger model, or --suggester lexicon."
        )
