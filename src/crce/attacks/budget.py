"""The budget of an attack and what it has spent.

A budget is counted in steps, whose meaning depends on the attack (see `ATTACKS`), and may also limit the rows through
the networks, which mean the same for every attack. Rows of the images generated on the way count too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from crce.errors import ConfigError


@dataclass(frozen=True)
class Budget:
    """What an attack may spend on each prompt.

    Attributes:
        steps: steps of the attack.
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
    """Rows that went through the networks, and generated images, whose rows are among them."""

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
    """Progress of an attack: steps done of all prompts together. A prompt that ends early skips the rest."""

    attack: str
    prompt: str
    done: int
    total: int


@dataclass
class Allowance:
    """The budget of one prompt while it is being spent.

    Attributes:
        budget: the budget.
        spent: the victim's counters.
        on_steps: called with the number of steps done whenever it changes.
        steps: steps done.
    """

    budget: Budget
    spent: Spent
    on_steps: Callable[[int], None] = lambda steps: None
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
        """How many of the next `steps` are granted; they count as done."""
        if self.done:
            return 0
        granted = min(steps, self.budget.steps - self.steps)
        self.steps += granted
        self.on_steps(self.steps)
        return granted
