"""The attacks by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crce.registry import Table


if TYPE_CHECKING:
    from crce.attacks.protocol import Attack


@dataclass(frozen=True)
class AttackSpec:
    """An attack: its "module:class", what it does in a line, and what one step of its budget is."""

    attack: str
    description: str
    step: str


_TEXT, _WORDS, _IMAGES = "crce.attacks.text", "crce.attacks.word_search", "crce.attacks.denoising"
BASELINES = {
    "paraphrase": AttackSpec(f"{_TEXT}:Paraphrase", "other names and other sentences", "a prompt"),
    "typo": AttackSpec(f"{_TEXT}:Typo", "typing errors, leetspeak, letters spaced apart", "a prompt"),
    "translation": AttackSpec(f"{_TEXT}:Translation", "the word in ten other languages", "a prompt"),
    "homoglyph": AttackSpec(f"{_TEXT}:Homoglyph", "letters that look the same", "a prompt"),
}
BASELINE_ATTACKS = tuple(BASELINES)  # they need no model and no search
ATTACKS: Table[AttackSpec] = Table(
    "attack",
    "crce.attacks",
    {
        **BASELINES,
        "ring-a-bell": AttackSpec(
            "crce.attacks.ring_a_bell:RingABell", "genetic search for words with similar text states", "a generation"
        ),
        "unlearndiffatk": AttackSpec(
            f"{_WORDS}:UnlearnDiffAtk", "words found by gradients, before the prompt", "a gradient"
        ),
        "p4d": AttackSpec(
            f"{_WORDS}:P4D", "words before the prompt, to make it predict as the base model does", "a gradient"
        ),
        "p4d-n": AttackSpec(f"{_WORDS}:P4DN", "the same with 16 words in place of the prompt", "a gradient"),
        "inversion": AttackSpec(f"{_IMAGES}:ConceptInversion", "a word embedding learned from images", "a gradient"),
        "relearning": AttackSpec(f"{_IMAGES}:Relearning", "fine-tuning on a few images", "an optimizer step"),
    },
)


def load_attack(name: str) -> Attack:
    """An attack with its published settings.

    Raises:
        ConfigError: there is no attack of that name, or it can't be loaded.
    """
    return ATTACKS.resolve(name, ATTACKS.find(name).attack)()
