"""Erasure runs: from the first step to the adapter on disk, and resuming after a stop."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from crce.backbones import Backbone, load_backbone
from crce.backbones.text_side import encoders_alone, text_side_parts
from crce.concepts import ConceptSet, write_sets
from crce.concepts.concept_set import fold
from crce.config import ErasureConfig
from crce.errors import ConceptError, ConfigError, MemoryShortage, RunError
from crce.methods import METHODS
from crce.methods.table import edits_states, refuse_unsupported
from crce.training import processes
from crce.training.base_model import load_recorded
from crce.training.checkpoint import (
    CHECKPOINT,
    load_checkpoint,
    load_start,
    open_metrics,
    save_checkpoint,
    start_record,
)
from crce.training.closed_form_trainer import ClosedFormTrainer
from crce.training.events import Event, Finished, Interrupted, Saved, Started
from crce.training.run_folder import (
    Erasure,
    alone,
    claim_folder,
    new_info,
    now,
    peak_memory,
    read_run,
    refuse_taken,
    write_adapter,
    write_run,
)
from crce.training.text_trainer import TextTrainer
from crce.training.trainer import Trainer


@contextlib.contextmanager
def _memory_advice() -> Iterator[None]:
    """Around a run: an out-of-memory error becomes advice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryShortage(
            "The device ran out of memory. Try --micro-batch 1 --gradient-checkpointing, and --offload with a LoRA; "
            "crce plan --model MODEL estimates what fits."
        ) from error


@_memory_advice()
def erase(
    concepts: ConceptSet | Sequence[ConceptSet],
    *,
    config: ErasureConfig,
    out: str | Path | None = None,
    start_from: str | Path | None = None,
    backbone: Backbone | None = None,
    on_event: Callable[[Event], None] | None = None,
    **loading: Any,
) -> Erasure:
    """Erase a concept set, or several at once, from a model.

    Args:
        concepts: what to erase and what to keep, one set for each target; the rest is as in `crce.erase`.
        config: settings, see `load_config`.
        start_from: a finished run of the same model and adapter shape: the student starts from its weights, and the
            targets of that run are erased too, so that they do not come back. The teacher is still the base model,
            and a closed form solves for all targets from it.
        backbone: it is returned unchanged, and `offload` of the config does not move its networks.
        loading: `model`, `device`, `dtype` and `revision` as in `load_backbone`, where no backbone is given.

    Raises:
        ConceptError: no concept set is given, or two of one target.
        ConfigError: the method does not work on models of this kind.
        RunError: `out` holds a run already, or can't be written; `start_from` is unfinished or of another shape.
        ModelError: the model can't be loaded.
        MemoryShortage: the device's memory ran out.
        Interrupted: the user stopped it; a checkpoint was written.
    """
    sets = (concepts,) if isinstance(concepts, ConceptSet) else tuple(concepts)
    if not sets:
        raise ConceptError("Nothing is to be erased. Give at least one concept set.")
    targets = [fold(c.target) for c in sets]
    if twice := next((c.target for i, c in enumerate(sets) if targets[i] in targets[:i]), None):
        raise ConceptError(f"'{twice}' is given twice. Give one concept set of it.")
    if out is not None:
        refuse_taken(Path(out))
    names = sets
    clock = time.perf_counter()
    refuse = partial(refuse_unsupported, config.method)  # before gigabytes are read, and before a folder is made
    loaded = backbone or load_backbone(accept=refuse, **loading, **_loading(config))
    refuse(type(loaded.pipe).__name__)
    for name, own in {"quantize": loaded.quantized, "drop_t5": loaded.drop_t5}.items():
        if own != (asked := getattr(config, name)):
            raise ConfigError(f"{name} is {asked!r}, but the given model was loaded with {own!r}. Load it so too.")
    seconds = time.perf_counter() - clock
    start = None
    if start_from is not None:
        start = start_record(start_from, config, loaded)
        sets += tuple(c for c in Erasure.load(start_from).sets if fold(c.target) not in targets)
    info = new_info(sets, config, loaded, start, seconds)
    with claim_folder(out, names) as folder:
        write_sets(folder / "concepts.yaml", sets)
        write_run(folder, info)
        return _train(folder, info, sets, config, loaded, on_event)


@alone
@_memory_advice()
def resume(
    folder: str | Path,
    *,
    device: str = "auto",
    backbone: Backbone | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Erasure:
    """Continue an interrupted or killed run; it ends with the same weights as a run without the break.

    Raises:
        RunError: it is no run folder, or its model has changed.
        MemoryShortage: the device's memory ran out.
        Interrupted: the user stopped it again.
    """
    folder = Path(folder)
    info, sets, config = read_run(folder)
    if info["status"] == "finished":
        (folder / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed right before this
        return Erasure(folder, sets, config, info)
    loaded = backbone or load_recorded(info, device=device, **_loading(config))
    if loaded.revision != info["revision"]:
        raise RunError(
            f"The model {info['model']!r} has changed since {folder} began ({info['revision']} then, "
            f"{loaded.revision} now), so the run can't be continued. Start a new one."
        )
    return _train(folder, info, sets, config, loaded, on_event)


def _loading(config: ErasureConfig) -> dict[str, Any]:
    """How a model is loaded for these settings; at first not all of it where that is enough."""
    parts = text_side_parts if edits_states(config) else encoders_alone if config.offload else None
    return {"offload": config.offload, "quantize": config.quantize, "drop_t5": config.drop_t5, "parts": parts}


def _train(
    folder: Path,
    info: dict[str, Any],
    sets: tuple[ConceptSet, ...],
    config: ErasureConfig,
    backbone: Backbone,
    on_event: Callable[[Event], None] | None,
) -> Erasure:
    if backbone.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(backbone.device)
    backbone.use_resolution(config.resolution)
    method = METHODS.find(config.method)
    kind = ClosedFormTrainer if method.solved else TextTrainer if method.trains_text else Trainer
    trainer = kind(backbone, sets, config)
    try:
        if isinstance(trainer, Trainer):
            # A checkpoint holds the trained weights whole: only a run without one needs those it starts from.
            if not load_checkpoint(folder, trainer) and info.get("start_from"):
                load_start(info["start_from"], folder, trainer.adapter)
            if trainer.share:
                how = _loading(config) | {"device": backbone.device.type}
                processes.send((type(trainer), info, sets, config, how, trainer.state()))
        earlier, clock = info["seconds"].get("train", 0.0), time.perf_counter()
        status = "interrupted"
        try:
            with _stop_between_steps() as stopped:
                for event in _steps(folder, trainer, config, backbone, stopped):
                    if on_event:
                        on_event(event)
                _refuse_weights(folder, trainer)
                if trainer.step_count < config.steps:
                    if isinstance(trainer, Trainer):
                        save_checkpoint(folder, trainer)
                    raise Interrupted(folder, trainer.step_count)
            if not trainer.adapter.moved():
                raise RunError(
                    f"The training of {folder} has changed no weight: what is erased is already answered as it should "
                    "be. Check erase_from and anchor of the concept set, and the settings."
                )
            write_adapter(folder, trainer.adapter.state(), trainer.adapter.metadata(), sets, info)
            status = "finished"
        finally:
            seconds = earlier + time.perf_counter() - clock
            info["seconds"]["train"] = round(seconds, 3)
            info |= {"status": status, "steps_done": trainer.step_count}
            info |= {"peak_memory_mb": peak_memory(backbone.device)}
            info["finished"] = now() if status == "finished" else None
            write_run(folder, info)
    finally:
        trainer.close()
    (folder / CHECKPOINT).unlink(missing_ok=True)
    if on_event:
        on_event(Finished(folder, seconds))
    return Erasure(folder, sets, config, info)


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


def _refuse_weights(folder: Path, trainer: Trainer | ClosedFormTrainer) -> None:
    if not all(bool(own.isfinite().all()) for own in trainer.adapter.parameters()):
        raise _not_finite(folder, trainer, "a weight is not finite")


def _not_finite(folder: Path, trainer: Trainer | ClosedFormTrainer, what: str) -> RunError:
    kept = f"{folder / CHECKPOINT} is from before it" if (folder / CHECKPOINT).exists() else "nothing is saved"
    return RunError(
        f"The erasure stopped at step {trainer.step_count}, at which {what}; {kept}. Start a new run with a lower "
        "learning_rate, alpha, beta or eta, in a closed form with a larger ridge; or with --dtype float32."
    )


def _steps(
    folder: Path,
    trainer: Trainer | ClosedFormTrainer,
    config: ErasureConfig,
    backbone: Backbone,
    stopped: threading.Event,
) -> Iterator[Event]:
    yield Started(config.steps, trainer.step_count, folder, backbone)
    with open_metrics(folder / "metrics.jsonl", trainer.step_count) as metrics:
        while trainer.step_count < config.steps and not stopped.is_set():
            clock = time.perf_counter()
            step = replace(trainer.step(), seconds=time.perf_counter() - clock)
            if not math.isfinite(step.loss):
                raise _not_finite(folder, trainer, f"the loss is {step.loss}")
            line = {"step": step.step, "loss": step.loss} | step.terms
            line |= {"timestep": step.timestep, "seconds": round(step.seconds, 4)}
            try:
                metrics.write(json.dumps(line).encode() + b"\n")
            except OSError as error:
                raise RunError(
                    f"Cannot write {folder / 'metrics.jsonl'}: {error.strerror}. The last checkpoint is whole; "
                    f"free some space, then continue: crce erase --resume {quote(str(folder))}"
                ) from error
            yield step
            due = trainer.step_count % config.checkpoint_every == 0 and trainer.step_count < config.steps
            if due and isinstance(trainer, Trainer):
                _refuse_weights(folder, trainer)
                yield Saved(save_checkpoint(folder, trainer))
