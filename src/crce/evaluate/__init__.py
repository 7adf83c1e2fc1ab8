"""Metrics and the report: what an erasure erased, what it kept, and how sure that is."""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names, make_callable


if TYPE_CHECKING:
    from crce.evaluate.evaluation import evaluate, evaluate_prompts
    from crce.evaluate.model_pair import Drawn
    from crce.evaluate.report import PromptReport, Report

__all__ = ["Drawn", "PromptReport", "Report", "evaluate", "evaluate_prompts"]

__getattr__ = lazy_names(__name__)

make_callable(__name__)  # crce.evaluate(...) is evaluate(...) of this package
