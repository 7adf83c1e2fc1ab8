"""Judges, metrics and the report: what an erasure erased, what it kept, and how sure that is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from crce.evaluate.drawing import draw
    from crce.evaluate.evaluation import Drawn, Report, evaluate
    from crce.evaluate.judges import Judge, load_judge
    from crce.evaluate.pictures import Picture

__all__ = ["Drawn", "Judge", "Picture", "Report", "draw", "evaluate", "load_judge"]

# Loaded on first use, so that importing this package does not import torch.
_HOME = {
    "Drawn": "evaluation",
    "Judge": "judges",
    "Picture": "pictures",
    "Report": "evaluation",
    "draw": "drawing",
    "evaluate": "evaluation",
    "load_judge": "judges",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
