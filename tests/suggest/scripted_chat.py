"""A chat that gives scripted answers in process: real texts of language models, without a server between."""

from __future__ import annotations

import json
import re
from typing import Any

from crce.llm import Message, Reply
from crce.suggest.verification import _SYLLABLES


MADE_UP = re.compile(f"(?:{'|'.join(_SYLLABLES)}){{3}}")  # the control that means nothing


class ScriptedChat:
    """Answers with the script's texts (or whole replies) in order; what it was asked stands in `asked`."""

    remote = False

    def __init__(self, *script: str | Reply, provider: str = "scripted", model: str = "tiny") -> None:
        self.provider = provider
        self.model = model
        self.asked: list[dict[str, Any]] = []
        self._script = list(script)

    def complete(
        self,
        messages: list[Message],
        schema: dict[str, Any],
        *,
        max_tokens: int = 2000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Reply:
        self.asked.append(
            {
                "messages": list(messages),
                "schema": schema,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "seed": seed,
            }
        )
        line = self._script.pop(0)
        return line if isinstance(line, Reply) else Reply(line)


def lists(corefs: dict[str, str], retains: dict[str, str]) -> str:
    """A well-formed answer from phrases and their certainty words."""
    sides = {"corefs": corefs, "retains": retains}
    return json.dumps(
        {
            side: [{"text": text, "reason": f"about {text}", "certainty": word} for text, word in phrases.items()]
            for side, phrases in sides.items()
        }
    )


def judged(*answers: str) -> str:
    """A well-formed answer of the second look."""
    return json.dumps({str(i): {"reason": "seen", "answer": answer} for i, answer in enumerate(answers, 1)})


class JudgingChat(ScriptedChat):
    """Answers the second look by phrase; what is not in `answers` is "never", and "nonsense" if it is made up.

    A phrase given as None is left out.
    """

    def __init__(self, answers: dict[str, str | None], **names: str) -> None:
        super().__init__(**names)
        self._answers = answers

    def complete(self, messages: list[Message], schema: dict[str, Any], **options: Any) -> Reply:
        numbered = re.findall(r'^(\d+)\. (".*")$', messages[-1].content, flags=re.MULTILINE)
        phrases = {number: json.loads(phrase).casefold() for number, phrase in numbered}
        answers = {
            number: self._answers.get(phrase, "nonsense" if MADE_UP.fullmatch(phrase) else "never")
            for number, phrase in phrases.items()
        }
        text = json.dumps({n: {"reason": "seen", "answer": answer} for n, answer in answers.items() if answer})
        self._script.append(text)
        return super().complete(messages, schema, **options)
