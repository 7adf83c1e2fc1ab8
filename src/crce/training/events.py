"""The events of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from crce.errors import CRCEError


if TYPE_CHECKING:
    from crce.backbones import Backbone


@dataclass(frozen=True)
class Started:
    """The first step is about to run. Until the run has finished, `backbone` generates as the student does."""

    total_steps: int  # of the whole run
    start_step: int  # steps done before; above 0 when a run is continued
    folder: Path
    backbone: Backbone = field(repr=False, compare=False)


@dataclass(frozen=True)
class Step:
    """One optimizer step. `terms` are the objective's sums over target, corefs and retains; they add up to `loss`."""

    step: int
    loss: float
    terms: dict[str, float]
    timestep: float
    seconds: float = 0.0  # as the run measures them


@dataclass(frozen=True)
class Saved:
    """A file was written."""

    path: Path


@dataclass(frozen=True)
class Finished:
    """Training is over and the adapter is on disk."""

    folder: Path
    seconds: float


Event = Started | Step | Saved | Finished


class Interrupted(CRCEError):
    """Training was stopped by the user; a checkpoint was written."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(
            f"Stopped after step {step}; nothing is lost. Continue: crce erase --resume {quote(str(folder))}"
        )
        self.folder = folder
        self.step = step
