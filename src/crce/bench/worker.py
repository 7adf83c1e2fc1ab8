"""A process that measures cells: its model stays loaded, and what the base model drew stays known."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from crce import __version__
from crce.backbones import Backbone, load_backbone
from crce.bench.planning import RECORD, Job, settings_of
from crce.concepts import ConceptSet
from crce.errors import CRCEError, RunError
from crce.evaluate import Report, evaluate
from crce.files import write_json, write_text
from crce.training import Erasure, Event, Finished, Interrupted, Saved, Started, Step, erase, resume
from crce.training.run_folder import now, read_run


logger = logging.getLogger(__name__)

NUMBERS = ("erased", "coref_erased", "kept", "H")
GROUP = ("measures", "value", "n", "left_out")  # what a row says of a group of prompts
TALLY = "tally.json"
ATTEMPTS = "attempts.jsonl"
ERROR = "error.txt"
TURNS = "turns"  # runs of the targets before the last, where they are erased in turn


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        key: of its job.
        record: what was measured.
        error: why nothing was measured, in one line; None where it was.
    """

    key: str
    record: dict[str, Any] | None = None
    error: str | None = None


class Worker:
    """Measures one cell after the other. The model and the base pictures of the last target are kept for the next."""

    def __init__(self, on_step: Callable[[Job, int, int], object] | None = None) -> None:
        self._on_step = on_step or (lambda *_: None)
        self._source: tuple[Any, ...] | None = None
        self._backbone: Backbone
        self._group: tuple[Any, ...] | None = None
        self._base: dict[Any, Any] = {}

    def measure(self, job: Job) -> Outcome:
        """Erase and score one cell, from where an earlier try was stopped; its errors are told in the outcome.

        Raises:
            Interrupted: the user stopped it, as KeyboardInterrupt does while pictures are drawn.
        """
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(job.folder / ".lock"):  # another benchmark may be at the same cell
                return Outcome(job.key, job.record or self._measure(job))
        except Interrupted:
            raise
        except Exception as error:  # the other cells go on
            known = isinstance(error, CRCEError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            if not known:
                logger.debug("%s failed", job.label, exc_info=True)
                _keep_traceback(job.folder)
            return Outcome(job.key, error=" ".join(text.split()))

    def _measure(self, job: Job) -> dict[str, Any]:
        (job.folder / ERROR).unlink(missing_ok=True)
        attempt = {"at": now(), "host": platform.node(), "pid": os.getpid()}
        with open(job.folder / ATTEMPTS, "a", encoding="utf-8") as f:
            f.write(json.dumps(attempt) + "\n")
        backbone = self._load(job)
        if job.group != self._group:
            self._group, self._base = job.group, {}
        erasure, seconds, forwards = self._erase(job, backbone)
        report = evaluate(
            erasure, device=job.device, backbone=backbone, base_cache=self._base, **settings_of(job.evaluation)
        )
        record = _record(job, report, erasure, seconds, forwards) | self._attack(job, erasure, backbone)
        write_json(job.folder / RECORD, record)
        return record

    def _attack(self, job: Job, erasure: Erasure, backbone: Backbone) -> dict[str, Any]:
        """What each attack brought back; nothing where the benchmark has none."""
        if not job.attacks:
            return {}
        from crce.attacks import attack

        plain: dict[Any, Any] = {}
        made = {}
        for entry in job.attacks:
            settings = asdict(entry)
            result = attack(
                erasure, settings.pop("attack"), **settings, **_drawn_as(job), backbone=backbone, plain=plain
            )
            made[entry.attack] = result.summary
        return {"attacks": made}

    def _load(self, job: Job) -> Backbone:
        wanted = (job.source, job.device, job.config.offload)
        if self._source != wanted:
            self._source, self._base = None, {}
            source = job.source
            self._backbone = load_backbone(
                source.model,
                device=job.device,
                dtype=source.dtype,
                revision=source.revision,
                offload=job.config.offload,
            )
            self._source = wanted
        if self._backbone.revision != job.told["revision"]:
            raise RunError(
                f"The model {job.source.model!r} has changed since the benchmark began ({job.told['revision']} then, "
                f"{self._backbone.revision} now). Run it again."
            )
        return self._backbone

    def _erase(self, job: Job, backbone: Backbone) -> tuple[Erasure, float, int | None]:
        """The finished run of a cell, the seconds that training took, and the latents that the denoiser saw."""
        task = job.task
        if not task.in_turn:
            return self._train(job, task.sets, job.folder, None, backbone)
        start: Path | None = None
        seconds, forwards = 0.0, []
        for turn, concepts in enumerate(task.sets, 1):
            folder = job.folder if turn == len(task.sets) else job.folder / TURNS / str(turn)
            erasure, lasted, saw = self._train(job, (concepts,), folder, start, backbone)
            seconds, start = seconds + lasted, erasure.folder
            forwards.append(saw)
        known = [saw for saw in forwards if saw is not None]
        return erasure, round(seconds, 3), sum(known) if len(known) == len(forwards) else None

    def _train(
        self, job: Job, sets: Sequence[ConceptSet], folder: Path, start: Path | None, backbone: Backbone
    ) -> tuple[Erasure, float, int | None]:
        tally = _Tally(folder / TALLY)

        def on_event(event: Event) -> None:
            tally(event)
            if isinstance(event, Step):
                self._on_step(job, event.step, job.config.steps)

        with tally.counting(backbone):
            try:
                if _begun(job, folder):
                    erasure = resume(folder, backbone=backbone, on_event=on_event)
                else:
                    erasure = erase(
                        sets, config=job.config, backbone=backbone, out=folder, start_from=start, on_event=on_event
                    )
            except Interrupted as interrupted:
                tally.write(interrupted.step)
                raise
        return erasure, tally.seconds(erasure), tally.forwards


class _Tally:
    """Counts forwards of the denoiser over all tries of a run, and goes back with the run to its last checkpoint."""

    def __init__(self, path: Path) -> None:
        noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._path = path
        self._at: int = noted.get("step", 0)
        self._before: int | None = noted.get("forwards")
        self._continued: bool = noted.get("continued", False)
        self._here = 0
        self._step = 0

    @contextmanager
    def counting(self, backbone: Backbone) -> Iterator[None]:
        """Inside, forwards are counted."""
        handle = backbone.network.register_forward_pre_hook(self._count, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._continued = event.start_step > 0
            if event.start_step == 0:
                self._before = 0
            elif event.start_step != self._at:
                self._before = None  # the try before was killed between its checkpoint and its note
        elif isinstance(event, Step):
            self._step = event.step
        elif isinstance(event, Saved | Finished):
            self.write(self._step)

    @property
    def forwards(self) -> int | None:
        """Latents that the denoiser saw; None if they were not counted in an earlier try."""
        return None if self._before is None else self._before + self._here

    def write(self, step: int) -> None:
        """Note how many there were until this step."""
        write_json(self._path, {"step": step, "forwards": self.forwards, "continued": self._continued})

    def seconds(self, erasure: Erasure) -> float:
        """Of the training; of one that was continued, of its steps alone."""
        if not self._continued:
            return erasure.info["seconds"]["train"]
        lines = (erasure.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return round(sum(json.loads(line)["seconds"] for line in lines), 3)

    def _count(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._here += len(args[0] if args else kwargs.get("sample", kwargs.get("hidden_states", ())))


def _begun(job: Job, folder: Path) -> bool:
    """Whether an earlier try left a run to go on with; what can't be read is cleared away."""
    if not (folder / "run.json").exists():
        return False
    try:
        read_run(folder)
    except CRCEError as error:
        logger.warning("%s begins again: %s", job.label, error)
        _clear(folder)
        return False
    return True


def _drawn_as(job: Job) -> dict[str, Any]:
    """The settings of the evaluation that an attack shares: the same seeds, sampler and judge."""
    told = job.evaluation
    return {
        "picture_seed": told.seed,
        "steps": told.steps,
        "guidance": told.guidance,
        "judge": told.judge,
    }


def _record(job: Job, report: Report, erasure: Erasure, seconds: float, forwards: int | None) -> dict[str, Any]:
    data = report.data
    several = {"targets": [{k: t[k] for k in ("target", "summary")} for t in report.targets]} if report.targets else {}
    return {
        "crce": __version__,
        "content": job.told,
        "numbers": {name: report.summary[name]["value"] for name in NUMBERS},
        "seconds": seconds,
        "forwards": forwards,
        "groups": {name: {key: group[key] for key in GROUP} for name, group in data.get("groups", {}).items()},
        "settings": data["settings"],
        "judge": data["judge"],
        "device": str(erasure.info["device"]).partition(":")[0],
        "threads": erasure.info["threads"],
        **several,
        **({"quality": data["quality"]} if data.get("quality") else {}),
    }


def _clear(folder: Path) -> None:
    """Make room for a run; what tells of earlier tries stays."""
    for path in folder.iterdir():
        if path.name in (".lock", ATTEMPTS, TURNS):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _keep_traceback(folder: Path) -> None:
    try:
        write_text(folder / ERROR, traceback.format_exc())
    except RunError as error:  # the disk may be what the cell failed of
        logger.warning("%s", error)
