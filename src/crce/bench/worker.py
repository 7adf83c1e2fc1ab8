"""Measures cells one after another, and keeps the model and the base images from one to the next."""

import json
import logging
import os
import platform
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crce import __version__
from crce.backbones import Backbone, load_backbone
from crce.bench.cells import RECORD, Job
from crce.errors import CRCEError, RunError
from crce.evaluate import Report, evaluate
from crce.evaluate.curve import read_trace
from crce.files import locked, read_json, write_json, write_text
from crce.sampling import ImageCache
from crce.training import Erasure, Event, Interrupted, Step, erase, resume
from crce.training.run_folder import HEADLINES, now, read_run


logger = logging.getLogger(__name__)

GROUP = ("measures", "value", "n", "left_out")  # keys of a group of prompts in a row
COUNTS = "forwards.json"
ATTEMPTS = "attempts.jsonl"
ERROR = "error.txt"
TURNS = "turns"  # folder of the earlier runs, when targets are erased in turn


@dataclass(frozen=True)
class CellOutcome:
    """The measurements of the cell of a job, or why there are none, in one line."""

    key: str
    record: dict[str, Any] | None = None
    error: str | None = None


class Worker:
    """Measures cells; the model and the base images of the last target are kept for the next cell."""

    def __init__(self, on_step: Callable[[Job, int, int], object] | None = None) -> None:
        self._on_step = on_step or (lambda *_: None)
        self._source: dict[str, Any] | None = None  # of the model that is loaded
        self._backbone: Backbone
        self._group: tuple[Any, ...] | None = None
        self._base = ImageCache()

    def measure(self, job: Job) -> CellOutcome:
        """Erase and evaluate one cell, continuing an interrupted attempt; errors are part of the outcome."""
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            with locked(job.folder, wait=-1):  # another benchmark may measure the same cell
                return CellOutcome(job.key, job.record or self._measure(job))
        except Interrupted:
            raise
        except Exception as error:  # does not stop the other cells
            text = str(error)
            if not isinstance(error, CRCEError):
                text = f"{type(error).__name__}: {error}"
                logger.debug("%s failed", job.cell.label, exc_info=True)
                with suppress(RunError):  # the disk may be full
                    write_text(job.folder / ERROR, traceback.format_exc())
            return CellOutcome(job.key, error=" ".join(text.split()))

    def _measure(self, job: Job) -> dict[str, Any]:
        (job.folder / ERROR).unlink(missing_ok=True)
        with open(job.folder / ATTEMPTS, "a", encoding="utf-8") as f:
            f.write(json.dumps({"at": now(), "host": platform.node(), "pid": os.getpid()}) + "\n")
        backbone = self._load(job)
        if job.group != self._group:
            self._group, self._base = job.group, ImageCache()
        erasure, seconds, forwards = self._erase(job, backbone)
        report = None
        if (asked := job.content["evaluation"]) is not None:
            # beside the settings there are the versions of what is not set
            how = {name: value for name, value in asked.items() if name not in ("target_images", "counting")}
            report = evaluate(erasure, device=job.device, backbone=backbone, image_cache=self._base, **how)
        record = _record(job, report, erasure, seconds, forwards) | self._attack(job, erasure, backbone)
        write_json(job.folder / RECORD, record)
        return record

    def _attack(self, job: Job, erasure: Erasure, backbone: Backbone) -> dict[str, Any]:
        """The summary of each attack, with the seeds, sampler and judge of the evaluation."""
        if not job.content["attacks"]:
            return {}
        from crce.attacks import attack

        how = job.content["evaluation"]
        shared: dict[str, Any] = {name: how[name] for name in ("steps", "guidance", "judge")}
        shared |= {"picture_seed": how["seed"], "backbone": backbone, "plain": {}}
        own = {entry["attack"]: {k: v for k, v in entry.items() if k != "attack"} for entry in job.content["attacks"]}
        return {"attacks": {name: attack(erasure, name, **own[name], **shared).summary for name in own}}

    def _load(self, job: Job) -> Backbone:
        source = job.cell.source
        wanted = asdict(source) | {"device": job.device}
        wanted |= {name: getattr(job.cell.config, name) for name in ("offload", "drop_t5", "quantize")}
        if self._source != wanted:
            self._source, self._base = None, ImageCache()
            self._backbone = load_backbone(**wanted)
            self._source = wanted
        planned = job.content["revision"]
        if self._backbone.revision != planned:
            revisions = f"{planned} then, {self._backbone.revision} now"
            changed = f"The model {source.model!r} has changed since the benchmark began"
            raise RunError(f"{changed} ({revisions}). Run it again.")
        return self._backbone

    def _erase(self, job: Job, backbone: Backbone) -> tuple[Erasure, float, int | None]:
        """The finished run of a cell, the seconds of training, and the latents that the denoiser processed."""
        task = job.cell.task
        turns = [(concepts,) for concepts in task.sets] if task.in_turn else [task.sets]
        config = job.cell.config
        start: Path | None = None
        seconds: list[float] = []
        forwards: list[int | None] = []

        def show(event: Event) -> None:
            if isinstance(event, Step):
                self._on_step(job, event.step, config.steps)

        for turn, sets in enumerate(turns, 1):
            folder = job.folder if turn == len(turns) else job.folder / TURNS / str(turn)
            counts, begun = folder / COUNTS, _has_run(job, folder)
            how: dict[str, Any] = {"backbone": backbone, "on_event": show}
            with _counting(backbone, counts, begun):
                if begun:
                    erasure = resume(folder, **how)
                else:
                    erasure = erase(sets, config=config, out=folder, start_from=start, **how)
            start = erasure.folder
            seconds.append(_seconds(erasure, begun))
            counted = read_json(counts, dict[str, int], "Delete it.") if counts.exists() else {}
            forwards.append(counted.get("forwards"))
        return erasure, round(sum(seconds), 3), None if None in forwards else sum(count or 0 for count in forwards)


@contextmanager
def _counting(backbone: Backbone, path: Path, begun: bool) -> Iterator[None]:
    """Inside, the latents that the denoiser processes are counted; a run that was begun before has lost count."""
    count = 0

    def add(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal count
        count += len(args[0] if args else kwargs.get("sample", kwargs.get("hidden_states", ())))

    handle = backbone.network.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
    if not begun:
        write_json(path, {"forwards": count})


def _seconds(erasure: Erasure, begun: bool) -> float:
    """Seconds of training; of a run that was begun before, whose process may have been killed, those of its steps."""
    if not begun:
        return erasure.info["seconds"]["train"]
    return round(sum(step["seconds"] for step in read_trace(erasure.folder)), 3)


def _has_run(job: Job, folder: Path) -> bool:
    """Whether an earlier attempt left a run to continue; an unreadable one is deleted, but no list of attempts."""
    if not (folder / "run.json").exists():
        return False
    try:
        read_run(folder)
    except CRCEError as error:
        logger.warning("%s starts over: %s", job.cell.label, error)
        for path in folder.iterdir():
            if path.name not in (".lock", ATTEMPTS, TURNS):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return False
    return True


def _record(job: Job, report: Report | None, erasure: Erasure, seconds: float, forwards: int | None) -> dict[str, Any]:
    record = {
        "crce": __version__,
        "content": job.content,
        "seconds": seconds,
        "forwards": forwards,
        "device": str(erasure.info["device"]).partition(":")[0],
        "threads": erasure.info["threads"],
    }
    if report is None:
        return record
    data = report.data
    record |= {
        "numbers": {name: report.summary[name]["value"] for name in HEADLINES},
        "groups": {name: {key: group[key] for key in GROUP} for name, group in data.get("groups", {}).items()},
        "settings": data["settings"],
        "judge": data["judge"],
    }
    if report.targets:
        record["targets"] = [{key: each[key] for key in ("target", "summary")} for each in report.targets]
    return record | ({"quality": data["quality"]} if data.get("quality") else {})
