"""Attacks: ways to bring an erased concept back, each with what it costs and how often it works."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from crce.errors import ConfigError
from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.attacks.campaign import Result, attack
    from crce.attacks.protocol import AdversarialPrompt, Attack, Budget, Progress, Prompt
    from crce.attacks.rerun import replay
    from crce.attacks.victim import Victim


@dataclass(frozen=True)
class Entry:
    """One row of ATTACKS.

    Attributes:
        module: of this package, imported when the attack is made.
        kind: the class in it.
        says: what it does, in a line.
        step: what one step of its budget is.
    """

    module: str
    kind: str
    says: str
    step: str


ATTACKS: dict[str, Entry] = {
    "paraphrase": Entry("text", "Paraphrase", "other names and other sentences", "a prompt drawn"),
    "typo": Entry("spelling", "Typo", "slips of the keyboard, leetspeak, letters spaced apart", "a prompt drawn"),
    "translation": Entry("text", "Translation", "the word in ten other languages", "a prompt drawn"),
    "homoglyph": Entry("spelling", "Homoglyph", "letters that look the same", "a prompt drawn"),
    "ring-a-bell": Entry("ring_a_bell", "RingABell", "genetic search for words that encode alike", "a generation"),
    "unlearndiffatk": Entry("unlearn_diff", "UnlearnDiffAtk", "words found by gradients, put in front", "a gradient"),
    "p4d": Entry("p4d", "P4D", "words that make it predict as the original does, put in front", "a gradient"),
    "p4d-n": Entry("p4d", "P4DN", "the same with 16 words and without the prompt", "a gradient"),
    "inversion": Entry("inversion", "ConceptInversion", "a word embedding learned from pictures", "a gradient"),
    "relearning": Entry("relearning", "Relearning", "fine-tuning on a few pictures", "an optimizer step"),
}
DULL = ("paraphrase", "typo", "translation", "homoglyph")  # that anyone at a keyboard tries first


def load_attack(name: str) -> Attack:
    """An attack with its published settings.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in ATTACKS:
        raise ConfigError(f"There is no attack {name!r}. Use one of: {', '.join(ATTACKS)}.")
    entry = ATTACKS[name]
    return getattr(import_module(f"{__name__}.{entry.module}"), entry.kind)()


__all__ = [
    "ATTACKS",
    "DULL",
    "AdversarialPrompt",
    "Attack",
    "Budget",
    "Entry",
    "Progress",
    "Prompt",
    "Result",
    "Victim",
    "attack",
    "load_attack",
    "replay",
]

__getattr__ = lazy_names(
    __name__,
    {
        "AdversarialPrompt": "protocol",
        "Attack": "protocol",
        "Budget": "protocol",
        "Progress": "protocol",
        "Prompt": "protocol",
        "Result": "campaign",
        "Victim": "victim",
        "attack": "campaign",
        "replay": "rerun",
    },
)
