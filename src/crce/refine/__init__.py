"""Closing the loop: what an evaluation found goes into the concept set, and the run is erased again from there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from crce.refine.halves import Halves
    from crce.refine.record import Change, Refinement, Round, read_refinement
    from crce.refine.refinement import Planned, Scored, refine

__all__ = ["Change", "Halves", "Planned", "Refinement", "Round", "Scored", "read_refinement", "refine"]

# Loaded on first use, so that the command line starts without torch.
_HOME = {
    "Change": "record",
    "Halves": "halves",
    "Planned": "refinement",
    "Refinement": "record",
    "Round": "record",
    "Scored": "refinement",
    "read_refinement": "record",
    "refine": "refinement",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
