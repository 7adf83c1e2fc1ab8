"""Prompt sets of public benchmarks and of users: read from disk, drawn, judged, and counted as their authors count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.evaluate.prompt_sets.measurement import PromptReport, evaluate_prompts
    from crce.evaluate.prompt_sets.protocol import PromptGroup, PromptSet
    from crce.evaluate.prompt_sets.table import PROMPT_SETS, load_prompt_set

__all__ = ["PROMPT_SETS", "PromptGroup", "PromptReport", "PromptSet", "evaluate_prompts", "load_prompt_set"]

__getattr__ = lazy_names(
    __name__,
    {
        "PROMPT_SETS": "table",
        "PromptGroup": "protocol",
        "PromptReport": "measurement",
        "PromptSet": "protocol",
        "evaluate_prompts": "measurement",
        "load_prompt_set": "table",
    },
)
