"""The attacks by name."""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from crce.registry import Table


if TYPE_CHECKING:
    from crce.attacks.protocol import Attack


@dataclass(frozen=True)
class AttackEntry:
    """An attack of `ATTACKS`.

    Attributes:
        attack: "module:class", imported when the attack is used.
        description: what it does, in a line.
        step: what one step of its budget is.
    """

    attack: str
    description: str
    step: str


_TEXT, _SPELLING, _P4D = "crce.attacks.text", "crce.attacks.spelling", "crce.attacks.p4d"
BASELINES = {
    "paraphrase": AttackEntry(f"{_TEXT}:Paraphrase", "other names and other sentences", "a prompt"),
    "typo": AttackEntry(f"{_SPELLING}:Typo", "typing errors, leetspeak, letters spaced apart", "a prompt"),
    "translation": AttackEntry(f"{_TEXT}:Translation", "the word in ten other languages", "a prompt"),
    "homoglyph": AttackEntry(f"{_SPELLING}:Homoglyph", "letters that look the same", "a prompt"),
}
BASELINE_ATTACKS = tuple(BASELINES)  # they need no model and no search
ATTACKS: Table[AttackEntry] = Table(
    "attack",
    "crce.attacks",
    {
        **BASELINES,
        "ring-a-bell": AttackEntry(
            "crce.attacks.ring_a_bell:RingABell", "genetic search for words with similar text states", "a generation"
        ),
        "unlearndiffatk": AttackEntry(
            "crce.attacks.unlearn_diff:UnlearnDiffAtk", "words found by gradients, before the prompt", "a gradient"
        ),
        "p4d": AttackEntry(
            f"{_P4D}:P4D", "words before the prompt, to make it predict as the base model does", "a gradient"
        ),
        "p4d-n": AttackEntry(f"{_P4D}:P4DN", "the same with 16 words in place of the prompt", "a gradient"),
        "inversion": AttackEntry(
            "crce.attacks.inversion:ConceptInversion", "a word embedding learned from images", "a gradient"
        ),
        "relearning": AttackEntry(
            "crce.attacks.relearning:Relearning", "fine-tuning on a few images", "an optimizer step"
        ),
    },
)


def load_attack(name: str) -> Attack:
    """An attack with its published settings.

    Raises:
        ConfigError: there is no attack of that name, or it can't be loaded.
    """
    return resolve_name(ATTACKS.find(name).attack)()
