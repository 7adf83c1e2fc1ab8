"""Judges, metrics and the report: what an erasure erased, what it kept, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.evaluate.drawing import draw
    from crce.evaluate.evaluation import Report, evaluate
    from crce.evaluate.judges import Judge, load_judge
    from crce.evaluate.pictures import Picture
    from crce.evaluate.sketches import Drawn

__all__ = ["Drawn", "Judge", "Picture", "Report", "draw", "evaluate", "load_judge"]

__getattr__ = lazy_names(
    __name__,
    {
        "Drawn": "sketches",
        "Judge": "judges",
        "Picture": "pictures",
        "Report": "evaluation",
        "draw": "drawing",
        "evaluate": "evaluation",
        "load_judge": "judges",
    },
)
