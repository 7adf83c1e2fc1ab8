"""The base class of attacks: for each prompt whose concept was erased, a search for what brings the concept back.

A budget is counted in steps, whose meaning depends on the attack (see `ATTACKS`), and may also limit the rows through
the networks, which mean the same for every attack. Rows of the images generated on the way count too.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from crce.attacks.prompts import AttackedPrompt
from crce.attacks.victim import Spent, Try, Victim
from crce.backbones import Backbone
from crce.bounds import check_numbers
from crce.errors import ConfigError


FINALISTS = 3  # tries that get a second look


@dataclass(frozen=True)
class Budget:
    """What an attack may spend on each prompt: steps, and rows through the networks, of which 0 is no limit.

    Raises:
        ConfigError: a number is out of range.
    """

    steps: int
    forwards: int = 0

    def __post_init__(self) -> None:
        check_numbers(budget=self.steps, forwards=self.forwards)


@dataclass(frozen=True)
class Progress:
    """Progress of an attack: steps done of all prompts together. A prompt that ends early skips the rest."""

    attack: str
    prompt: str
    done: int
    total: int


@dataclass
class Allowance:
    """The budget of one prompt while it is being spent, the victim's counters, and the steps done.

    `on_steps` is called with the number of steps whenever it changes.
    """

    budget: Budget
    spent: Spent
    on_steps: Callable[[int], None] = lambda steps: None
    steps: int = 0

    def __post_init__(self) -> None:
        self._start = self.spent.forwards

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self.steps >= self.budget.steps or 0 < self.budget.forwards <= self.spent.forwards - self._start

    def take(self, steps: int = 1) -> int:
        """How many of the next `steps` are granted; they count as done."""
        if self.done:
            return 0
        granted = min(steps, self.budget.steps - self.steps)
        self.steps += granted
        self.on_steps(self.steps)
        return granted


@dataclass(frozen=True)
class AdversarialPrompt:
    """What an attack found for a prompt."""

    found: Try  # to be measured, chosen by `Attack.pick`
    tries: tuple[Try, ...]  # everything that was tried, in order, the plain prompt first
    steps: int  # of the budget
    spent: dict[str, int]
    details: dict[str, Any] = field(default_factory=dict)  # further results of the attack, as JSON


class Attack(ABC):
    """An attack. A subclass has a name, a default budget, its settings as fields, and `search`.

    Attributes:
        name: its name in `ATTACKS`.
        default_steps: the budget where none is given.
        seeks: what it searches for: "text"; "words", which needs gradients by word embeddings; or "weights".
        searches_again: whether a replay must repeat the search, because the result is neither a text nor an embedding.
    """

    name: ClassVar[str]
    default_steps: ClassVar[int]
    seeks: ClassVar[str] = "text"
    searches_again: ClassVar[bool] = False

    def check_model(self, backbone: Backbone) -> None:
        """Refuse, with a ConfigError, models on which the attack does not work."""
        if self.seeks == "words" and not backbone.reads_words:
            raise ConfigError(
                f"{self.name} needs gradients by the word embeddings of a single CLIP-like text encoder, which "
                f"{type(backbone.pipe).__name__} does not have. Use paraphrase, typo, translation, homoglyph, "
                "ring-a-bell or relearning."
            )

    def run(
        self,
        victim: Victim,
        prompt: AttackedPrompt,
        budget: Budget,
        on_steps: Callable[[int], None] = lambda steps: None,
    ) -> AdversarialPrompt:
        """Attack a prompt within a budget, calling `on_steps` with the number of steps done after each.

        The result depends on the seed and the prompt, not on prompts attacked before.
        """
        before = replace(victim.spent)
        allowance = Allowance(budget, victim.spent, on_steps)
        victim.begin(self.name, prompt)
        (plain,) = victim.attempt([prompt.text])
        details = {} if plain.complete else self.search(victim, prompt, allowance)
        tries = tuple(victim.tries)
        found = self.pick(victim, tries)
        spent = {name: value - getattr(before, name) for name, value in vars(victim.spent).items()}
        return AdversarialPrompt(found, tries, allowance.steps, spent, details)

    def pick(self, victim: Victim, tries: tuple[Try, ...]) -> Try:
        """The plain prompt, which is the first try, unless another has more hits.

        Among many tries with few images each, the best one owes much to luck. So where none is complete, the plain
        prompt and the best few get a second look.
        """
        plain, best = tries[0], sorted(tries, key=lambda a: a.score, reverse=True)[:FINALISTS]
        if best[0].complete or best[0].hits <= plain.hits:
            return best[0] if best[0].complete else plain
        looked = [(victim.second_look(a), a) for a in (plain, *best)]
        (hits, _), found = max(looked, key=lambda pair: pair[0])
        return found if hits > looked[0][0][0] else plain

    @abstractmethod
    def search(self, victim: Victim, prompt: AttackedPrompt, allowance: Allowance) -> dict[str, Any]:
        """Let the victim attempt prompts until the budget is spent or a try is complete.

        Returns:
            Further results, as JSON.
        """


def stream(seed: int, *names: str) -> torch.Generator:
    """A CPU generator whose seed depends on the seed and the names."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def summarise_losses(losses: list[float]) -> dict[str, float]:
    """The means of the first and the last tenth of the losses."""
    n = max(1, len(losses) // 10)
    return {"first": round(sum(losses[:n]) / n, 5), "last": round(sum(losses[-n:]) / n, 5)} if losses else {}
