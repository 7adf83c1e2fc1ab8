"""How a concept is erased: a table of methods, and the objective that all of them share.

A gradient method says what the student should predict for an erased prompt; a closed-form method computes the weights.
"""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names
from crce.methods.table import METHODS, Method, load_method


if TYPE_CHECKING:
    from crce.methods.closed_form import ClosedFormMethod
    from crce.methods.gradient import GradientMethod

__all__ = ["METHODS", "ClosedFormMethod", "GradientMethod", "Method", "load_method"]

__getattr__ = lazy_names(__name__)
