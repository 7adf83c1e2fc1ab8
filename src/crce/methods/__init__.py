"""How a concept is erased.

A gradient method says what the student should predict for an erased prompt; a closed-form method computes the weights.
To add one: a class with `erase_target` or `edit`, and one line in METHODS or CLOSED_FORM.
"""

from __future__ import annotations

from crce.methods.ablation import ConceptAblation
from crce.methods.advunlearn import AdvUnlearn
from crce.methods.closed_form import ClosedFormMethod
from crce.methods.eap import EAP
from crce.methods.esd import ESD
from crce.methods.gradient import GradientMethod
from crce.methods.mace import MACE
from crce.methods.rece import RECE
from crce.methods.speed import SPEED
from crce.methods.spm import SPM
from crce.methods.uce import UCE


METHODS: dict[str, GradientMethod] = {
    method.name: method for method in (ESD(), ConceptAblation(), SPM(), EAP(), AdvUnlearn())
}
CLOSED_FORM: dict[str, ClosedFormMethod] = {method.name: method for method in (UCE(), RECE(), SPEED(), MACE())}

__all__ = [
    "CLOSED_FORM",
    "EAP",
    "ESD",
    "MACE",
    "METHODS",
    "RECE",
    "SPEED",
    "SPM",
    "UCE",
    "AdvUnlearn",
    "ClosedFormMethod",
    "ConceptAblation",
    "GradientMethod",
]
