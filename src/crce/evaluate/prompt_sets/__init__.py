"""Prompt sets: of the run's concept sets, of public benchmarks, and of users' files."""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.evaluate.prompt_sets.prompt_set import Number, PromptSet
    from crce.evaluate.prompt_sets.table import PROMPT_SETS, load_prompt_set

__all__ = ["PROMPT_SETS", "Number", "PromptSet", "load_prompt_set"]

__getattr__ = lazy_names(__name__)
