"""Closing the loop: what an evaluation found goes into the concept set, and the run is erased again from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.refine.record import Change, Refinement, Round, read_refinement
    from crce.refine.refinement import Planned, Scored, refine
    from crce.refine.split import Halves

__all__ = ["Change", "Halves", "Planned", "Refinement", "Round", "Scored", "read_refinement", "refine"]

__getattr__ = lazy_names(
    __name__,
    {
        "Change": "record",
        "Halves": "split",
        "Planned": "refinement",
        "Refinement": "record",
        "Round": "record",
        "Scored": "refinement",
        "read_refinement": "record",
        "refine": "refinement",
    },
)
