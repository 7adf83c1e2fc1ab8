"""Kills crce at random moments of each verb, fills the disk, or starts it twice; then repeats it and compares the end.

    python tests/crash/crash.py 500          # cases; a second number is the first seed

A case is a seed: it chooses a verb, a kind of trouble and the moment. Each verb runs in a child made by `fork`, in
which an audit hook of Python counts every operation that changes a file, and strikes at one of them.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from crce.attacks import attack
from crce.backbones import Backbone
from crce.bench import plan_grid, read_grid, run_bench
from crce.concepts import ConceptSet, Related
from crce.errors import CRCEError
from crce.evaluate import evaluate
from crce.evaluate.prompt_sets import concept_set
from crce.export import export
from crce.refine import refine
from crce.suggest.memory import Memory
from crce.training import erase, load_config, resume


SETTINGS = {"steps": 3, "pool": 1, "ddim_steps": 3, "corefs_per_step": 1, "retains_per_step": 1}
SETTINGS |= {"checkpoint_every": 2, "layers": "kv", "rank": 2}
QUICK = {"images_per_prompt": 1, "seed": 50}
SET = ConceptSet(
    "cat",
    corefs=(Related("kitty"), Related("kitten", held_out=True), Related("pussycat", held_out=True)),
    retains=(Related("dog"), Related("tiger", held_out=True), Related("wolf", held_out=True)),
)
GRID = """
concepts: [cat]
methods: [uce, {method: esd, steps: 2, checkpoint_every: 1, pool: 1, ddim_steps: 3, layers: kv}]
crce: [false]
evaluate: {images_per_prompt: 1, phrases_per_group: 1, steps: 1}
"""
VERBS = 3 * ("erase", "attack") + 2 * ("evaluate", "export") + ("bench", "refine")  # the quick ones more often
TROUBLES = ("kill", "kill", "kill at a time", "full disk", "full disk", "twice")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
# What may differ: times, how much work it took, and hashes of files that hold those.
UNEQUAL = ("seconds", "started", "finished", "at", "pid", "peak_memory_mb", "sha256", "spent", "forwards", "continued")
LEFT_OUT = (".lock", "attempts.jsonl", "forwards.json", "report.html", "table.md")  # the last two show times


@dataclass
class Crashes:
    """A place where verbs are disturbed, with the undisturbed end of each that was needed so far."""

    root: Path
    backbone: Backbone
    ends: dict[str, tuple[dict[str, Any], int, float]] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.root / "work"  # always the same path, as files may hold it

    def erase(self) -> None:
        path = self.work / "cat" / "run.json"
        if path.exists() and path.stat().st_size:
            resume(path.parent, backbone=self.backbone)
        else:
            erase(SET, config=load_config("demo", SETTINGS), backbone=self.backbone, out=path.parent)

    def evaluate(self, steps: int = 1) -> None:
        evaluate(self.work / "cat", backbone=self.backbone, steps=steps, **QUICK)

    def attack(self) -> None:
        quick = {"phrases": 2, "images_per_prompt": 1, "images_per_try": 1, "steps": 1}
        attack(self.work / "cat", "typo", budget=2, backbone=self.backbone, **quick)

    def export(self) -> None:
        for to in ("kohya", "merged"):
            export(self.work / "cat", to, force=True)

    def refine(self) -> None:
        memory = Memory(self.root / "decisions.jsonl")
        refine(self.work / "cat", rounds=1, suggester="lexicon", min_gain=0.0, backbone=self.backbone, memory=memory)

    def bench(self) -> None:
        (self.root / "grid.yaml").write_text(GRID)
        plan = plan_grid(read_grid(self.root / "grid.yaml"), cache=self.work / "cells", device="cpu")
        if failed := run_bench(plan, out=self.work / "out").failed:
            raise CRCEError(failed[0]["error"])

    def before(self, verb: str) -> None:
        """Set the folder up as the verb finds it."""
        shutil.rmtree(self.work, ignore_errors=True)
        if verb in ("erase", "bench"):
            self.work.mkdir()
            return
        saved = self.root / ("evaluated" if verb == "refine" else "erased")
        if not saved.exists():
            self.before("evaluate" if verb == "refine" else "erase")
            self.child(partial(self.evaluate, steps=4) if verb == "refine" else self.erase)
            self.work.rename(saved)
        shutil.copytree(saved, self.work)

    def end(self, verb: str) -> tuple[dict[str, Any], int, float]:
        """What a verb leaves when nothing happens, how many files it changes, and how many seconds it takes."""
        if verb not in self.ends:
            self.before(verb)
            clock = time.perf_counter()
            log = self.root / "operations"
            assert self.child(getattr(self, verb), partial(_count, self.work, log)) == 0, self.log()
            seconds = time.perf_counter() - clock
            self.ends[verb] = content(self.work), len(log.read_bytes()), seconds
        return self.ends[verb]

    def case(self, seed: int) -> str:
        """Disturb a verb and let it go on.

        Raises:
            AssertionError: the disturbed process ended otherwise than it may, or the end is not the same.
        """
        chance = random.Random(seed)
        verb = chance.choice(VERBS)
        trouble = chance.choice(TROUBLES)
        expected, operations, seconds = self.end(verb)
        self.before(verb)
        at, moment = chance.randint(1, operations), chance.uniform(0, seconds)
        name = f"seed {seed}: {verb}, {trouble}, operation {at} of {operations}"
        if trouble == "kill":
            assert self.child(getattr(self, verb), partial(_strike, self.work, at, None)) == -signal.SIGKILL, name
        elif trouble == "full disk":
            code = self.child(getattr(self, verb), partial(_strike, self.work, at, errno.ENOSPC))
            assert code in (0, 2), f"{name}: exit code {code}\n{self.log()}"
        elif trouble == "kill at a time":
            pid = self.start(getattr(self, verb))
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
            self.wait(pid)
        else:
            pids = [self.start(getattr(self, verb)) for _ in range(2)]
            codes = sorted(self.wait(pid) for pid in pids)
            assert codes in ([0, 0], [0, 2]), f"{name}: exit codes {codes}\n{self.log()}"
        code = self.child(getattr(self, verb))
        assert code == 0, f"{name}: going on ended with {code}\n{self.log()}"
        found = content(self.work)
        unequal = [path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path)]
        assert not unequal, f"{name}: other than undisturbed: {sorted(unequal)}"
        return name

    def child(self, work: Callable[[], None], begin: Callable[[], None] | None = None) -> int:
        return self.wait(self.start(work, begin))

    def start(self, work: Callable[[], None], begin: Callable[[], None] | None = None) -> int:
        """Do work in a child of this process, with what it prints in a log; its number."""
        if pid := os.fork():
            return pid
        code = 1
        try:
            # A place that can't be: which images are generated must not depend on what was judged before.
            os.environ["CRCE_BASE_WORDS"] = str(self.root / "log" / "words")
            concept_set.UNRELATED_PROMPTS = 2
            log = os.open(self.root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if begin is not None:
                begin()
            work()
            code = 0
        except CRCEError as error:
            os.write(2, f"error: {error}\n".encode())
            code = 2
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        os._exit(code)

    def wait(self, pid: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")[-3000:]


def _watch(folder: Path, act: Callable[[str], None]) -> None:
    """Call `act` with the name of every operation that is about to change a file in the folder."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(arguments[0]).startswith(str(folder)):
            act(event)

    sys.addaudithook(hook)


def _count(folder: Path, log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    _watch(folder, lambda event: os.write(file, b"."))


def _strike(folder: Path, at: int, error: int | None) -> None:
    """Kill this process at the operation of that number, or let it and all later ones that need space fail."""
    done = 0

    def act(event: str) -> None:
        nonlocal done
        done += 1
        if done == at and error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if error is not None and done >= at and event in ("open", "os.mkdir"):
            raise OSError(error, os.strerror(error))

    _watch(folder, act)


def content(folder: Path) -> dict[str, Any]:
    """The files of a folder: JSON without what may differ, all others as bytes.

    Images are compared roughly: those of a batch that was cut short are sums in another order.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in LEFT_OUT:
            name = path.relative_to(folder).as_posix()
            found[name] = path.read_bytes()
            if path.suffix == ".json":
                found[name] = _equal_part(json.loads(found[name]))
            elif path.suffix == ".jsonl":
                found[name] = [_equal_part(json.loads(line)) for line in found[name].splitlines()]
            elif path.suffix in (".png", ".webp"):
                found[name] = Picture(path)
    return found


class Picture:
    """An image that equals others that look the same."""

    def __init__(self, path: Path) -> None:
        with Image.open(path) as image:
            self.pixels = np.asarray(image.convert("RGB"), float)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Picture) or other.pixels.shape != self.pixels.shape:
            return False
        return float(np.abs(self.pixels - other.pixels).mean()) < 1

    __hash__ = None  # type: ignore[assignment]


def _equal_part(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _equal_part(item) for key, item in value.items() if key not in UNEQUAL}
    return [_equal_part(item) for item in value] if isinstance(value, list) else value


def main(cases: int, first: int = 0) -> int:
    """Run cases and print those that fail; returns their number."""
    from crce.backbones import load_backbone

    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as root:
        crashes = Crashes(Path(root), load_backbone("demo", device="cpu"))
        for seed in range(first, first + cases):
            try:
                report = crashes.case(seed)
            except AssertionError as error:
                failed += 1
                report = f"FAILED {error}"
            sys.stdout.write(f"{report}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{cases} cases, {failed} failed\n")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(*map(int, sys.argv[1:])) else 0)
