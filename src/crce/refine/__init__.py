"""Refining a run: the failures of an evaluation extend the concept set, and training continues from there."""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.refine.record import PhraseChange, Refinement, Round, read_refinement
    from crce.refine.refinement import RoundPlanned, RoundScored, refine
    from crce.refine.split import Split

__all__ = ["PhraseChange", "Refinement", "Round", "RoundPlanned", "RoundScored", "Split", "read_refinement", "refine"]

__getattr__ = lazy_names(__name__)
