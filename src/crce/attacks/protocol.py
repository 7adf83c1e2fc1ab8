"""What every attack is: it is shown prompts whose concept was erased, and looks for what brings the concept back.

A budget is counted in steps, whose meaning is an attack's own (see ATTACKS), and may be bounded in rows through the
networks besides, which is the same for all. Rows of pictures that are drawn on the way count too.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from crce.errors import ConfigError


if TYPE_CHECKING:
    from crce.attacks.victim import Try, Victim
    from crce.backbones import Backbone
    from crce.concepts import ConceptSet


FINALISTS = 3  # tries that are looked at twice


@dataclass(frozen=True)
class Prompt:
    """A prompt under attack.

    Attributes:
        text: the prompt, as the base model understands it.
        role: "target", "coref" or "held-out coref".
        expected: the judge's class that means the concept is back.
        concepts: what was erased with it and kept beside it.
    """

    text: str
    role: str
    expected: str
    concepts: ConceptSet

    @property
    def target(self) -> str:
        return self.concepts.target


@dataclass(frozen=True)
class Budget:
    """What an attack may spend on each prompt.

    Attributes:
        steps: its own steps.
        forwards: rows through text encoder and denoiser together; 0 is no limit.

    Raises:
        ConfigError: a number is out of range.
    """

    steps: int
    forwards: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"The budget is {self.steps} steps. Use 1 or more.")
        if self.forwards < 0:
            raise ConfigError(f"The budget is {self.forwards} forwards. Use 0 (no limit) or more.")


@dataclass
class Spent:
    """Rows that went through the networks, and pictures drawn, whose rows are among them."""

    text: int = 0
    denoiser: int = 0
    pictures: int = 0

    @property
    def forwards(self) -> int:
        return self.text + self.denoiser

    def since(self, before: Spent) -> dict[str, int]:
        """What was spent after `before`."""
        return {name: value - getattr(before, name) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Progress:
    """Progress of one attack: steps done of all prompts together. A prompt that is done early skips its rest."""

    attack: str
    prompt: str
    done: int
    total: int


@dataclass
class Allowance:
    """A budget while it is spent on one prompt.

    Attributes:
        budget: what there is.
        spent: the victim's counters.
        tell: is told of steps done on this prompt.
        steps: steps done.
    """

    budget: Budget
    spent: Spent
    tell: Callable[[int], None] = lambda steps: None
    steps: int = 0
    _start: int = field(init=False)

    def __post_init__(self) -> None:
        self._start = self.spent.forwards

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        forwards = self.spent.forwards - self._start
        return self.steps >= self.budget.steps or 0 < self.budget.forwards <= forwards

    def take(self, steps: int = 1) -> int:
        """How many of the next `steps` may be done; they count as done."""
        if self.done:
            return 0
        granted = min(steps, self.budget.steps - self.steps)
        self.steps += granted
        self.tell(self.steps)
        return granted

    def each(self, steps: int) -> Iterator[int]:
        """Numbers from 0 as long as steps are left, at most `steps`."""
        for number in range(steps):
            if not self.take():
                return
            yield number


@dataclass(frozen=True)
class AdversarialPrompt:
    """What an attack found for a prompt.

    Attributes:
        prompt: the prompt under attack.
        found: the try to measure, as `Attack.pick` says; the plain prompt is among the tries.
        tries: every prompt that was drawn, in order, the plain one first.
        steps: steps of the budget that were taken.
        spent: what that cost.
        details: what else the attack has to say, as JSON.
    """

    prompt: Prompt
    found: Try
    tries: tuple[Try, ...]
    steps: int
    spent: dict[str, int]
    details: dict[str, Any] = field(default_factory=dict)


class Attack(ABC):
    """A way to bring a concept back. A subclass has a name, a default budget, its settings as fields, and `search`.

    Attributes:
        name: its key in ATTACKS.
        default_steps: the budget where none is given.
        seeks: what it works on: "text"; "words", which takes gradients by word embeddings; or "weights".
        searches_again: whether a replay has to search again, since what was found is no text and no embedding.
    """

    name: ClassVar[str]
    default_steps: ClassVar[int]
    seeks: ClassVar[str] = "text"
    searches_again: ClassVar[bool] = False

    def refuse_unfit(self, backbone: Backbone) -> None:
        """
        Raises:
            ConfigError: the attack does not work on models of this kind.
        """
        if self.seeks == "words" and not backbone.reads_words:
            raise ConfigError(
                f"{self.name} takes gradients by the word embeddings of one text encoder, and "
                f"{type(backbone.pipe).__name__} has several or others. Use one of the attacks on text: paraphrase, "
                "typo, translation, homoglyph, ring-a-bell; or relearning."
            )

    def settings(self) -> dict[str, Any]:
        """Its fields, as JSON."""
        return dict(vars(self))

    def run(
        self,
        erased: Victim,
        prompts: Sequence[Prompt],
        budget: Budget,
        on_event: Callable[[Progress], None] | None = None,
    ) -> Iterator[AdversarialPrompt]:
        """Attack prompts one after the other; what is found for one depends on the seed and on its text alone.

        Args:
            erased: the erased model, with the base model behind it.
            prompts: what to bring back.
            budget: for each prompt.
            on_event: is told of every step.

        Raises:
            ConfigError: the attack does not work on models of this kind.
        """
        self.refuse_unfit(erased.backbone)
        for i, prompt in enumerate(prompts):

            def tell(steps: int, i: int = i, prompt: Prompt = prompt) -> None:
                if on_event:
                    on_event(Progress(self.name, prompt.text, i * budget.steps + steps, len(prompts) * budget.steps))

            before = Spent(**vars(erased.spent))
            allowance = Allowance(budget, erased.spent, tell)
            erased.begin(self.name, prompt)
            (plain,) = erased.tried([prompt.text])
            details = {} if plain.complete else self.search(erased, prompt, allowance)
            tries = tuple(erased.tries)
            found = self.pick(erased, tries)
            yield AdversarialPrompt(prompt, found, tries, allowance.steps, erased.spent.since(before), details)
            tell(budget.steps)

    def pick(self, erased: Victim, tries: tuple[Try, ...]) -> Try:
        """What is found: the best try. Where none is complete the best few are drawn again, from more seeds.

        Of many tries with few pictures the best owes much to luck. Of equals the first is taken, so that a tie is the
        plain prompt's.
        """
        best = sorted(tries, key=lambda a: a.score, reverse=True)[:FINALISTS]
        if best[0].complete or not best[0].hits:
            return best[0]
        return max(best, key=erased.second_look)

    @abstractmethod
    def search(self, erased: Victim, prompt: Prompt, allowance: Allowance) -> dict[str, Any]:
        """Have the victim draw tries, until the budget is spent or one is complete.

        Returns:
            What else is to be told, as JSON.
        """


def stream(seed: int, *names: str) -> torch.Generator:
    """A CPU generator of its own for what is named."""
    return torch.Generator().manual_seed(_number(seed, *names))


def choices(seed: int, *names: str) -> random.Random:
    """Likewise for choices in plain Python."""
    return random.Random(_number(seed, *names))


def _number(seed: int, *names: str) -> int:
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:7], "big")
