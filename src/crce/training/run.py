"""Run folders: one erasure with all it was made of and all it made.

run.json              settings, seeds, versions, model and its revision, timings, peak memory, status
concepts.yaml         the concept set
metrics.jsonl         one line per step
adapter.safetensors   what was trained; its metadata holds the concept set and the base model
checkpoint.safetensors  only while the run is unfinished
"""

from __future__ import annotations

import contextlib
import json
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from io import RawIOBase
from pathlib import Path
from typing import Any

import torch

from crce import __version__
from crce.backbones import UNetBackbone, load_backbone
from crce.concepts import ConceptSet, dump_concepts, read_concepts, write_concepts
from crce.errors import RunError
from crce.files import free_folder, slug, write_json, write_tensors, write_text
from crce.training.checkpoint import FILE as CHECKPOINT
from crce.training.checkpoint import load_checkpoint, save_checkpoint
from crce.training.config import ErasureConfig
from crce.training.events import Event, Finished, Interrupted, Saved, Started, Step
from crce.training.trainer import Trainer


PACKAGES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy")


@dataclass(frozen=True)
class Erasure:
    """A finished run.

    Attributes:
        folder: the run folder.
        concepts: what was erased and kept.
        config: with which settings.
        info: the content of run.json.
    """

    folder: Path
    concepts: ConceptSet
    config: ErasureConfig
    info: dict[str, Any]

    @property
    def adapter(self) -> Path:
        """The trained adapter, for `apply_adapter`."""
        return self.folder / "adapter.safetensors"

    @classmethod
    def load(cls, folder: str | Path) -> Erasure:
        """Read a run folder.

        Raises:
            RunError: it is no run folder, or its training hasn't finished.
        """
        info, concepts, config = _read_run(Path(folder))
        if info["status"] != "finished":
            raise RunError(
                f"The run {folder} is {info['status']}, not finished. Continue it: crce erase --resume {folder}"
            )
        return cls(Path(folder), concepts, config, info)


def erase(
    concepts: ConceptSet,
    *,
    config: ErasureConfig,
    model: str = "demo",
    out: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    backbone: UNetBackbone | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Erasure:
    """Erase a concept set from a model.

    Args:
        concepts: what to erase and what to keep.
        config: settings, see `load_config`.
        model: see `load_backbone`, as are device, dtype and revision.
        out: run folder; None takes the next free runs/<target>-<number>.
        backbone: a loaded backbone to use instead of `model`; it is handed back as it was.
        on_event: called with every event of the run.

    Raises:
        RunError: `out` holds a run already, or can't be written.
        ModelError: the model can't be loaded.
        Interrupted: the user stopped it; a checkpoint was written.
    """
    folder = Path(out) if out is not None else next_folder(concepts)
    if (folder / "run.json").exists():
        raise RunError(
            f"{folder} holds a run already. Choose another --out, or continue that run: crce erase --resume {folder}"
        )
    clock = time.perf_counter()
    loaded = backbone or load_backbone(model, device=device, dtype=dtype, revision=revision)
    info = {
        "crce": __version__,
        "status": "running",
        "model": loaded.model,
        "revision": loaded.revision,
        "concept": concepts.target,
        "config": config.model_dump(),
        "steps_done": 0,
        "started": _now(),
        "finished": None,
        "seconds": {"load": round(time.perf_counter() - clock, 3), "train": 0.0},
        "peak_memory_mb": None,
        "device": str(loaded.device),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }
    write_concepts(folder / "concepts.yaml", concepts)
    write_json(folder / "run.json", info)
    return _train(folder, info, concepts, config, loaded, on_event)


def resume(
    folder: str | Path,
    *,
    device: str = "auto",
    backbone: UNetBackbone | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Erasure:
    """Continue an interrupted or killed run; it ends with the weights it would have had without the break.

    Raises:
        RunError: it is no run folder, or its model has changed.
        Interrupted: the user stopped it again.
    """
    folder = Path(folder)
    info, concepts, config = _read_run(folder)
    if info["status"] == "finished":
        return Erasure(folder, concepts, config, info)
    loaded = backbone or load_backbone(
        info["model"], device=device, dtype=info["dtype"], revision=_hub_revision(info["revision"])
    )
    if loaded.revision != info["revision"]:
        raise RunError(
            f"The model {info['model']!r} has changed since {folder} began ({info['revision']} then, "
            f"{loaded.revision} now), so the run can't be continued. Start a new one."
        )
    return _train(folder, info, concepts, config, loaded, on_event)


def next_folder(concepts: ConceptSet, root: Path = Path("runs")) -> Path:
    """The first free runs/<target>-<number>; the name is safe on every system."""
    return free_folder(root, slug(concepts.target))


def _train(
    folder: Path,
    info: dict[str, Any],
    concepts: ConceptSet,
    config: ErasureConfig,
    backbone: UNetBackbone,
    on_event: Callable[[Event], None] | None,
) -> Erasure:
    if backbone.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(backbone.device)
    trainer = Trainer(backbone, concepts, config)
    try:
        load_checkpoint(folder, trainer)
        earlier, clock = info["seconds"]["train"], time.perf_counter()
        status = "interrupted"
        try:
            with _stop_between_steps() as stopped:
                for event in _steps(folder, trainer, config, stopped):
                    if on_event:
                        on_event(event)
                if trainer.step_count < config.steps:
                    save_checkpoint(folder, trainer)
                    raise Interrupted(folder, trainer.step_count)
            _write_adapter(folder, trainer, concepts, info)
            status = "finished"
        finally:
            seconds = earlier + time.perf_counter() - clock
            info["seconds"]["train"] = round(seconds, 3)
            info |= {
                "status": status,
                "steps_done": trainer.step_count,
                "peak_memory_mb": _peak_memory(backbone.device),
            }
            info["finished"] = _now() if status == "finished" else None
            write_json(folder / "run.json", info)
    finally:
        trainer.adapter.close()
    (folder / CHECKPOINT).unlink(missing_ok=True)
    if on_event:
        on_event(Finished(folder, seconds))
    return Erasure(folder, concepts, config, info)


@contextlib.contextmanager
def _stop_between_steps() -> Iterator[threading.Event]:
    """Inside, Ctrl-C sets the event instead of breaking into a step; a second Ctrl-C stops at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # signals reach the main thread only
        return
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(*_: Any) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _steps(folder: Path, trainer: Trainer, config: ErasureConfig, stopped: threading.Event) -> Iterator[Event]:
    yield Started(config.steps, trainer.step_count, folder)
    with _open_metrics(folder / "metrics.jsonl", trainer.step_count) as metrics:
        while trainer.step_count < config.steps and not stopped.is_set():
            clock = time.perf_counter()
            result = trainer.step()
            step = Step(trainer.step_count, result.loss, result.terms, result.timestep, time.perf_counter() - clock)
            line = {"step": step.step, "loss": step.loss} | step.terms
            line |= {"timestep": step.timestep, "seconds": round(step.seconds, 4)}
            try:
                metrics.write(json.dumps(line).encode() + b"\n")
            except OSError as error:
                raise RunError(
                    f"Cannot write {folder / 'metrics.jsonl'}: {error.strerror}. The last checkpoint is whole; "
                    f"free some space, then continue: crce erase --resume {folder}"
                ) from error
            yield step
            if trainer.step_count % config.checkpoint_every == 0 and trainer.step_count < config.steps:
                yield Saved(save_checkpoint(folder, trainer))


def _open_metrics(path: Path, step: int) -> RawIOBase:
    """Open the metrics for appending after `step` lines; later ones, of a run that was killed, are made again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:step]
        write_text(path, "".join(lines))
    # Unbuffered: every line is on disk at once, and nothing is left to be written when the disk is full.
    return open(path, "ab", buffering=0)


def _write_adapter(folder: Path, trainer: Trainer, concepts: ConceptSet, info: dict[str, Any]) -> None:
    metadata = trainer.adapter.metadata() | {
        "crce": __version__,
        "base_model": info["model"],
        "base_revision": info["revision"] or "",
        "concepts": dump_concepts(concepts),
        "config": json.dumps(info["config"]),
    }
    write_tensors(folder / "adapter.safetensors", trainer.adapter.state(), metadata)


def _read_run(folder: Path) -> tuple[dict[str, Any], ConceptSet, ErasureConfig]:
    path = folder / "run.json"
    if not path.is_file():
        raise RunError(f"{folder} is not a run folder: it holds no run.json. Make one: crce erase CONCEPT")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        config = ErasureConfig(**info["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"Cannot read {path}: {error}") from error
    return info, read_concepts(folder / "concepts.yaml"), config


def _hub_revision(revision: str | None) -> str | None:
    return None if revision is None or ":" in revision else revision


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _peak_memory(device: torch.device) -> float | None:
    """Peak memory in MB: of the GPU, or of this process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
