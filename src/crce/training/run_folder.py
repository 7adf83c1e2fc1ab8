"""Run folders: inputs and outputs of one erasure.

run.json              settings, seeds, versions, model and its revision, timings, peak memory, status
concepts.yaml         the concept set, or a list of them
metrics.jsonl         one line per step
adapter.safetensors   what was trained; its metadata holds the concept set and the base model
checkpoint.safetensors  only while the run is unfinished
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from io import RawIOBase
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import torch

from crce import __version__
from crce.backbones.defaults import defaults_of
from crce.concepts import ConceptSet, dump_concepts, read_sets
from crce.concepts.concept_set import target_names
from crce.config import ErasureConfig
from crce.errors import ConfigError, RunError
from crce.files import free_folder, read_tensors, sha256, slug, write_tensors, write_text


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.training.adapters import Adapter
    from crce.training.closed_form_trainer import ClosedFormTrainer
    from crce.training.trainer import Trainer

PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy")
CHECKPOINT = "checkpoint.safetensors"
OLD_SAMPLING = {"steps": 20, "guidance": 4.0}  # of runs that have not recorded their model's


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
        return self.info.get("sampling", OLD_SAMPLING)

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


def next_folder(sets: Sequence[ConceptSet], root: Path = Path("runs")) -> Path:
    """The first free runs/<targets>-<number>; the name is safe on every system."""
    return free_folder(root, slug(target_names(sets)))


def claim_folder(out: str | Path | None, sets: Sequence[ConceptSet]) -> Path:
    """A folder for one run alone, with an empty run.json: `out`, or the next free one.

    Raises:
        RunError: `out` is taken, also by a process that began at the same time, or the folder can't be made.
    """
    while True:
        folder = Path(out) if out is not None else next_folder(sets)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "run.json").touch(exist_ok=False)
            return folder
        except FileExistsError as error:
            if out is not None and folder.is_dir():
                refuse_taken(folder)
            elif not folder.is_dir():
                raise RunError(f"{folder} is a file. Choose another --out.") from error
        except OSError as error:
            raise RunError(f"Cannot write {folder}: {error.strerror}. Choose another --out.") from error


def refuse_taken(folder: Path) -> None:
    """Raises RunError if a folder holds a run."""
    if (folder / "run.json").exists():
        raise RunError(
            f"{folder} holds a run already. Choose another --out, or continue that run: "
            f"crce erase --resume {quote(str(folder))}"
        )


def read_run(folder: Path) -> tuple[dict[str, Any], tuple[ConceptSet, ...], ErasureConfig]:
    """The record, the concept sets and the settings of a run, finished or not.

    Raises:
        RunError: it is no run folder, or its run.json can't be read.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise RunError(f"{folder} is not a run folder: it holds no run.json. Make one: crce erase CONCEPT")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        config = ErasureConfig.from_record(info["config"])
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise RunError(f"Cannot read {path}: {error}") from error
    return info, read_sets(folder / "concepts.yaml"), config


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
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }


def start_record(folder: str | Path, config: ErasureConfig, backbone: Backbone) -> dict[str, str]:
    """The entry in run.json of the earlier run that a student starts from.

    Raises:
        RunError: the run is missing, unfinished, of another model, or of an adapter of another shape.
    """
    earlier = Erasure.load(folder)
    then, here = earlier.info["revision"], backbone.revision
    if (then or earlier.info["model"]) != (here or backbone.model):
        raise RunError(
            f"The run {folder} erased from {earlier.info['model']!r} at {then}, but the model here is "
            f"{backbone.model!r} at {here}. Its weights fit the model they were trained on: use that."
        )
    shapes = []  # the settings that decide which tensors an adapter has and what they mean
    for c in (earlier.config, config):
        lora = {"rank": c.rank, "lora_alpha": c.lora_alpha or c.rank} if config.adapter == "lora" else {}
        shapes.append({"adapter": c.adapter, "layers": c.layers, **lora})
    if wrong := [name for name in shapes[0] if shapes[0][name] != shapes[1][name]]:
        theirs, ours = (", ".join(f"{name} {shape[name]}" for name in wrong) for shape in shapes)
        raise RunError(f"Can't start from the run {folder}: it has {theirs}, these settings {ours}. Use the same.")
    return {"run": str(earlier.folder.resolve()), "adapter": file_hash(earlier.adapter)}


def start_state(start: dict[str, str], folder: Path) -> dict[str, torch.Tensor]:
    """The weights that the run in `folder` starts from, as long as they are still those it began with.

    Raises:
        RunError: they are gone, damaged or have changed.
    """
    path = Path(start["run"]) / "adapter.safetensors"
    if file_hash(path) != start["adapter"]:
        raise RunError(
            f"{path} has changed since {folder} began from it, so that run can't be continued. Start a new one."
        )
    try:
        return read_tensors(path)[0]
    except OSError as error:
        raise RunError(f"The adapter {path} is damaged: {error}. Erase that run again.") from error


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, as "sha256:...".

    Raises:
        RunError: it can't be read.
    """
    try:
        return f"sha256:{sha256(path)}"
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}. It holds the weights of a run.") from error


def open_metrics(path: Path, step: int) -> RawIOBase:
    """Open the metrics for appending after `step` lines; later ones, of a run that was killed, are dropped."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:step]
        write_text(path, "".join(lines))
    # Unbuffered: every line is on disk at once, and nothing is left to be written when the disk is full.
    return open(path, "ab", buffering=0)


def write_adapter(folder: Path, adapter: Adapter, sets: Sequence[ConceptSet], info: dict[str, Any]) -> None:
    """Write what was trained, with the concept sets and the base model in its metadata."""
    metadata = adapter.metadata() | {
        "crce": __version__,
        "base_model": info["model"],
        "base_revision": info["revision"] or "",
        "concepts": dump_concepts(sets),
        "config": json.dumps(info["config"]),
    }
    write_tensors(folder / "adapter.safetensors", adapter.state(), metadata)


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


def save_checkpoint(folder: Path, trainer: Trainer | ClosedFormTrainer) -> Path:
    """Write the trainer's state; the checkpoint before stays until the new one is whole.

    Raises:
        RunError: the folder can't be written.
    """
    tensors, values = trainer.state()
    write_tensors(folder / CHECKPOINT, tensors, {"state": json.dumps(values)})
    return folder / CHECKPOINT


def load_checkpoint(folder: Path, trainer: Trainer | ClosedFormTrainer) -> bool:
    """Continue from the folder's checkpoint, and return whether there is one: else a trainer is at its first step.

    Raises:
        RunError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    try:
        tensors, metadata = read_tensors(path)
        values = json.loads(metadata["state"])
    except (OSError, KeyError, ValueError) as error:
        raise RunError(
            f"The checkpoint {path} is damaged ({error}). Delete it to train this run from its first step."
        ) from error
    trainer.load_state(tensors, values)
    return True
