"""The queue of jobs. Each is a folder with a record and a log, and while it runs a process of its own.

What a job is doing is read from its folder, so that a server that was killed and started again goes on where the
other stopped: it finds the jobs that still run, and starts none twice.
"""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from crce.errors import ConfigError, RunError
from crce.files import read_json, write_json
from crce.web.job import LOCK, RECORD, exit_file, process_file


logger = logging.getLogger(__name__)

State = Literal["queued", "running", "paused", "cancelled", "finished", "failed", "stopped"]
LONGEST = 20  # jobs that wait
STARTUP = 30.0  # seconds until a process that was started must hold its lock
TAIL = 8000  # characters of a log that are shown
SHOWN = 100  # of all that there have been; those that wait are among the latest


@dataclass(frozen=True)
class WebJob:
    """One command, with `arguments` after `crce`, that works on the run folder of the name `run`."""

    number: int
    title: str  # for people
    arguments: list[str]
    run: str
    state: State = "queued"  # "stopped" if its process was killed
    attempt: int = 0  # how often it was begun
    asked: Literal["pause", "cancel"] | None = None  # of a running one
    queued: float = 0.0  # seconds since the epoch, as are the next two
    started: float | None = None
    ended: float | None = None

    __pydantic_config__ = {"extra": "forbid"}  # of a record in a file

    @property
    def active(self) -> bool:
        return self.state in ("queued", "running")

    @property
    def resumable(self) -> bool:
        return self.state in ("paused", "stopped", "failed")


class Queue:
    """Jobs whose folders are in `home`, one at a time; `continued` gives the arguments that continue one of them."""

    def __init__(self, home: Path, continued: Callable[[WebJob], list[str]]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._continued = continued
        self._lock = FileLock(home / "queue.lock")  # also against a second server
        self._children: list[subprocess.Popen[bytes]] = []
        self._awake = threading.Event()
        self._closed = False

    def add(self, title: str, arguments: Sequence[str], run: str) -> WebJob:
        """Add a job at the end; a ConfigError if the queue is full, or a job of this run waits or runs."""
        with self._lock:
            jobs = self._read()
            if sum(job.active for job in jobs) >= LONGEST:
                raise ConfigError(f"The queue holds {LONGEST} jobs. Cancel one, or wait for one to end.")
            if busy := next((job for job in jobs if job.active and job.run == run), None):
                raise ConfigError(
                    f"'{busy.title}' has not ended yet, and works on {run} too. Wait for it, or cancel it."
                )
            number = max((job.number for job in jobs), default=0) + 1
            job = WebJob(number, title, list(arguments), run, queued=time.time())
            self._write(job)
        self._awake.set()
        return job

    def jobs(self) -> list[WebJob]:
        """The jobs, the newest first."""
        with self._lock:
            return [self._settle(job) for job in reversed(self._read())]

    def of_run(self, run: str) -> WebJob | None:
        """The job that works on a run or waits to, else the newest of the run; None if there is none."""
        own = [job for job in self.jobs() if job.run == run]
        return next((job for job in own if job.active), own[0] if own else None)

    def busy(self) -> bool:
        return any(job.state == "running" for job in self.jobs())

    def ask(self, number: int, what: Literal["pause", "cancel", "resume"]) -> None:
        """Pause, cancel or resume a job; what is asked of a job that has ended meanwhile has no effect."""
        with self._lock:
            jobs = [self._settle(job) for job in self._read()]
            job = next((job for job in jobs if job.number == number), None)
            if job is None:
                raise ConfigError(f"There is no job {number}.")
            if what == "resume" and job.resumable:
                if any(other.active and other.run == job.run for other in jobs):
                    raise ConfigError(f"Another job works on {job.run}. Wait for it, or cancel it.")
                self._write(replace(job, state="queued", asked=None, ended=None, arguments=self._continued(job)))
            elif what != "resume" and job.state == "running":
                self._write(replace(job, asked=what))
                self._interrupt(job)
            elif what != "resume" and (job.state == "queued" or (what == "cancel" and job.resumable)):
                self._write(replace(job, state="paused" if what == "pause" else "cancelled"))
        self._awake.set()

    def log(self, job: WebJob) -> str:
        path = self._folder(job.number) / "log.txt"
        if not path.is_file():
            return ""
        with open(path, "rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL))
            return stream.read().decode("utf-8", "replace")

    def error(self, job: WebJob | None) -> str | None:
        """The last error that a job printed, if it has failed."""
        log = self.log(job) if job and job.state == "failed" else ""
        lines = [line for line in log.splitlines() if line.startswith("error: ")]
        return lines[-1].removeprefix("error: ") if lines else None

    def step(self) -> None:
        """Start the next job if none runs."""
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]
            jobs = [self._settle(job) for job in self._read()]
            waiting = [job for job in jobs if job.state == "queued"]
            if waiting and not any(job.state == "running" for job in jobs):
                self._start(waiting[0])

    def work(self) -> None:
        """Step until `close`, in a thread of its own, whose priority the jobs inherit."""
        while not self._closed:
            try:
                self.step()
            except RunError:  # a damaged record: the pages, which read the same, show the error
                pass
            except OSError:  # no memory or disk for a process: its job will count as stopped
                logger.exception("starting a job failed")
            self._awake.wait(0.5)
            self._awake.clear()

    def close(self) -> None:
        """End `work`; jobs go on."""
        self._closed = True
        self._awake.set()

    def _start(self, job: WebJob) -> None:
        job = replace(job, state="running", attempt=job.attempt + 1, started=time.time())
        self._write(job)  # first, so that a server that is killed here leaves a job that is stopped, not one run twice
        folder = self._folder(job.number)
        with open(folder / "log.txt", "ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "crce.web.job", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "100"},
                start_new_session=True,  # so that Ctrl-C in the server's terminal leaves it alone
            )
        self._children.append(child)

    def _settle(self, job: WebJob) -> WebJob:
        """The job as its process has left it."""
        if job.state != "running":
            return job
        folder = self._folder(job.number)
        if _held(folder / LOCK):  # first: the process writes its exit code before it lets go
            return job
        state: State
        ended = exit_file(folder, job.attempt)
        if ended.is_file():
            code = json.loads(ended.read_text(encoding="utf-8"))["code"]
            state = "finished" if code == 0 else "failed"
            if code == 130:
                state = "cancelled" if job.asked == "cancel" else "paused"
        elif not process_file(folder, job.attempt).is_file() and time.time() - (job.started or 0) < STARTUP:
            return job  # its process may not have come to take its lock yet
        else:
            state = "cancelled" if job.asked == "cancel" else "stopped"
        settled = replace(job, state=state, asked=None, ended=time.time())
        self._write(settled)
        return settled

    def _interrupt(self, job: WebJob) -> None:
        """Ctrl-C for its process: training ends after the step in progress, with a checkpoint."""
        folder = self._folder(job.number)
        process = process_file(folder, job.attempt)
        if _held(folder / LOCK) and process.is_file():  # else it reads what is asked before it begins
            os.kill(int(process.read_text(encoding="utf-8")), signal.SIGINT)

    def _folder(self, number: int) -> Path:
        return self._home / f"{number:04d}"

    def _read(self) -> list[WebJob]:
        numbers = sorted(int(path.name) for path in self._home.iterdir() if re.fullmatch(r"\d+", path.name))
        folders = [self._folder(number) for number in numbers[-SHOWN:]]
        records = [path for folder in folders if (path := folder / RECORD).is_file()]
        return [WebJob(**read_json(path, WebJob, f"Delete {path.parent}.")) for path in records]

    def _write(self, job: WebJob) -> None:
        write_json(self._folder(job.number) / RECORD, asdict(job))


def _held(path: Path) -> bool:
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True
