"""Run folders: inputs and outputs of one erasure.

run.json              settings, seeds, versions, model and its revision, timings, peak memory, status, hashes
concepts.yaml         the concept set, or a list of them
metrics.jsonl         one line per step
adapter.safetensors   what was trained; its metadata holds the concept set and the base model
checkpoint.safetensors  only while the run is unfinished
"""

from __future__ import annotations

import functools
import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from pydantic import BaseModel

from crce import __version__
from crce.backbones.defaults import defaults_of
from crce.concepts import ConceptSet, dump_concepts, read_sets
from crce.concepts.concept_set import target_names
from crce.config import ErasureConfig
from crce.errors import ConfigError, RunError
from crce.files import locked, new_folder, read_json, sha256, slug, text_hash, write_json, write_tensors


if TYPE_CHECKING:
    from crce.backbones import Backbone

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy")
HEADLINES = {  # the summary of report.json
    "erased": "erased",
    "coref_erased": "erased, held-out corefs",
    "kept": "kept, held-out retains",
    "unrelated": "kept, unrelated",
    "H": "H",
    "H3": "H without unrelated",
}

F = TypeVar("F", bound=Callable[..., Any])


class RunFile(BaseModel, strict=True):
    """run.json; what has a default here not every run has, and hashes a user may take out."""

    status: Literal["running", "interrupted", "finished"]
    model: str
    revision: str | None
    dtype: str
    config: dict[str, Any]
    sampling: dict[str, Any]
    start_from: dict[str, str] | None = None
    seconds: dict[str, float]
    sha256: dict[str, str] = {}


class ReportFile(BaseModel, strict=True):
    """report.json; one of several targets has no groups, and one of a single target no targets."""

    verdict: str
    summary: dict[str, dict[str, Any]]
    judge: dict[str, Any] | None
    settings: dict[str, Any]
    groups: dict[str, dict[str, Any]] = {}
    targets: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Erasure:
    """A finished run.

    Attributes:
        folder: the run folder.
        sets: what was erased and kept, one concept set for each target.
        config: with which settings.
        info: the content of run.json.
    """

    folder: Path
    sets: tuple[ConceptSet, ...]
    config: ErasureConfig
    info: dict[str, Any]

    @property
    def concepts(self) -> ConceptSet:
        """The concept set of the run's first target, which is the only one of most runs."""
        return self.sets[0]

    @property
    def adapter(self) -> Path:
        """The trained adapter, for `apply_adapter`."""
        return self.folder / "adapter.safetensors"

    @property
    def sampling(self) -> dict[str, Any]:
        """Steps and guidance of images of its model, unless the user says otherwise."""
        return self.info["sampling"]

    @classmethod
    def load(cls, folder: str | Path) -> Erasure:
        """Read a run folder.

        Raises:
            RunError: it is no run folder, or its training hasn't finished.
        """
        info, sets, config = read_run(Path(folder))
        if info["status"] != "finished":
            raise RunError(
                f"The run {folder} is {info['status']}, not finished. Continue it: "
                f"crce erase --resume {quote(str(folder))}"
            )
        return cls(Path(folder), sets, config, info)


@contextmanager
def claim_folder(out: str | Path | None, sets: Sequence[ConceptSet]) -> Iterator[Path]:
    """A folder that nobody else writes meanwhile: `out`, or the first runs/<targets>-<number> that is free.

    Raises:
        RunError: `out` is taken, also by a process that began at the same time, or the folder can't be made.
    """
    folder = Path("runs" if out is None else out)
    try:
        if out is None:
            folder = new_folder(folder, slug(target_names(sets)))
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RunError(f"{folder} is a file. Choose another --out.") from error
    except OSError as error:
        raise RunError(f"Cannot write {folder}: {error.strerror}. Choose another --out.") from error
    with locked(folder):
        refuse_taken(folder)
        yield folder


def refuse_taken(folder: Path) -> None:
    """Raises RunError if a folder holds a run; an empty run.json is of one that was killed before it began."""
    path = folder / "run.json"
    if path.exists() and path.stat().st_size:
        raise RunError(
            f"{folder} holds a run already. Choose another --out, or continue that run: "
            f"crce erase --resume {quote(str(folder))}"
        )


def alone(function: F) -> F:
    """Let a function whose first argument is a run, or its folder, work on it while no other process does."""

    @functools.wraps(function)
    def holding(run: str | Path | Erasure, *args: Any, **kwargs: Any) -> Any:
        with locked(run.folder if isinstance(run, Erasure) else Path(run)):
            return function(run, *args, **kwargs)

    return cast("F", holding)


def read_run(folder: Path) -> tuple[dict[str, Any], tuple[ConceptSet, ...], ErasureConfig]:
    """The record, the concept sets and the settings of a run, finished or not.

    Raises:
        RunError: it is no run folder, its run.json can't be read, or a file has changed since crce wrote it.
    """
    path = folder / "run.json"
    if not path.is_file() or not path.stat().st_size:
        raise RunError(
            f"{folder} is not a run folder: it holds no run.json, or an empty one of a run that was killed before it "
            f"began. Make one: crce erase CONCEPT --out {quote(str(folder))}"
        )
    info = read_json(path, RunFile, "Bring it back, or erase again.")
    if changed := changed_files(folder, info):
        raise RunError(
            f"{' and '.join(changed)} of the run {folder} changed after crce wrote the run, or got lost. Bring back "
            f'what was there, or, to use the run as it is now, delete the entry "sha256" from {path}.'
        )
    try:
        config = ErasureConfig(**info["config"])
    except (KeyError, TypeError, ConfigError) as error:
        raise RunError(f"Cannot read {path}: config: {error}") from error
    return info, read_sets(folder / "concepts.yaml"), config


def read_report(folder: Path) -> dict[str, Any] | None:
    """The report.json of a run, or None if the run was not evaluated.

    Raises:
        RunError: it exists and can't be read.
    """
    path = folder / "report.json"
    cure = f"Evaluate again: crce evaluate {quote(str(folder))}"
    return read_json(path, ReportFile, cure) if path.exists() else None


def write_run(folder: Path, info: dict[str, Any]) -> None:
    """Write run.json, with the hashes of all that is final, by which `read_run` sees changes."""
    info["sha256"] = _hashes(folder, info)
    write_json(folder / "run.json", info)


def changed_files(folder: Path, info: dict[str, Any]) -> list[str]:
    """The files of a run that changed after it was written; of one without hashes none.

    Raises:
        RunError: one can't be read.
    """
    now = _hashes(folder, info)
    return [name for name, digest in info.get("sha256", {}).items() if now.get(name) != digest]


def _hashes(folder: Path, info: dict[str, Any]) -> dict[str, str]:
    own = json.dumps({key: value for key, value in info.items() if key != "sha256"}, sort_keys=True)
    final = ("concepts.yaml", "adapter.safetensors") if info["status"] == "finished" else ("concepts.yaml",)
    files = {name: file_hash(folder / name) for name in final if (folder / name).exists()}
    return {"run.json": f"sha256:{text_hash(own)}"} | files


def new_info(
    sets: Sequence[ConceptSet],
    config: ErasureConfig,
    backbone: Backbone,
    start: dict[str, str] | None,
    seconds_loading: float,
) -> dict[str, Any]:
    """The content of run.json before the first step; `start` is that of `start_record`."""
    return {
        "crce": __version__,
        "status": "running",
        "model": backbone.model,
        "revision": backbone.revision,
        "sampling": defaults_of(backbone).as_json(),
        "targets": [concepts.target for concepts in sets],
        "config": config.model_dump(mode="json"),
        "start_from": start,
        "steps_done": 0,
        "started": now(),
        "finished": None,
        "seconds": {"load": round(seconds_loading, 3), "train": 0.0},
        "peak_memory_mb": None,
        "device": str(backbone.device),
        "loaded": "text side" if any(p.is_meta for p in backbone.network.parameters()) else "whole",
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, as "sha256:...".

    Raises:
        RunError: it can't be read.
    """
    try:
        return f"sha256:{sha256(path)}"
    except OSError as error:
        raise RunError(
            f"Cannot read {path}: {error.strerror}. The run needs it: bring it back, or erase again."
        ) from error


def write_adapter(
    folder: Path, state: Mapping[str, torch.Tensor], how: Mapping[str, str], sets: Sequence[ConceptSet], info: Any
) -> None:
    """Write the state of an adapter, and its metadata (`how`) with the concept sets and the base model."""
    metadata = {
        **how,
        "crce": __version__,
        "base_model": info["model"],
        "base_revision": info["revision"] or "",
        "concepts": dump_concepts(sets),
        "config": json.dumps(info["config"]),
    }
    write_tensors(folder / "adapter.safetensors", state, metadata)


def now() -> str:
    """The time in UTC, as run.json keeps it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def peak_memory(device: torch.device) -> float | None:
    """Peak memory in MB: of the GPU, or of this process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
