"""Metrics and the report: what an erasure erased, what it kept, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.lazy import lazy_names, make_callable


if TYPE_CHECKING:
    from crce.evaluate.evaluation import Report, evaluate
    from crce.evaluate.observe import Drawn

__all__ = ["Drawn", "Report", "evaluate"]

__getattr__ = lazy_names(__name__, {"Drawn": "observe", "Report": "evaluation", "evaluate": "evaluation"})

make_callable(__name__)  # crce.evaluate(...) is evaluate(...) of this package
