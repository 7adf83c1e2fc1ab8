"""Attacks: searches for prompts, embeddings or weights that bring an erased concept back, and their success rates."""

from typing import TYPE_CHECKING

from crce.attacks.table import ATTACKS, BASELINE_ATTACKS, AttackSpec, load_attack
from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.attacks.campaign import AttackResult, attack
    from crce.attacks.protocol import Attack, Budget, Progress
    from crce.attacks.rerun import replay

__all__ = ["ATTACKS", "BASELINE_ATTACKS", "Attack", "AttackResult", "AttackSpec", "Budget", "Progress", "attack"]
__all__ += ["load_attack", "replay"]

__getattr__ = lazy_names(__name__)
