"""Jobs measured in this process, in parallel processes with one thread and one model each, or on a Ray cluster."""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import Any

from crce.bench.cells import Job
from crce.bench.worker import CellOutcome, Worker
from crce.errors import ConfigError


Begin = Callable[[], object]  # called in each process before its first job; must be importable there
TIMEOUT = 10  # seconds that a process has to end
RETRIES = 3  # by Ray, of a cell whose process or machine died
_CONTEXT = multiprocessing.get_context("spawn")  # a forked process would share the state of torch and the GPU


def run_here(jobs: Sequence[Job], on_step: Callable[[Job, int, int], object] | None = None) -> Iterator[CellOutcome]:
    """Measure jobs in this process."""
    worker = Worker(on_step)
    for job in jobs:
        yield worker.measure(job)


def run_parallel(jobs: Sequence[Job], count: int, begin: Begin | None = None) -> Iterator[CellOutcome]:
    """Measure jobs in parallel processes, and yield each outcome as soon as it is available.

    If a process dies, only its current job fails; a new process replaces it.
    """
    queue = _Queue(jobs)
    processes = [_WorkerProcess(begin) for _ in range(min(count, len(jobs)))]
    try:
        for process in processes:
            process.take(queue)
        while busy := {process.connection: (process, process.job) for process in processes if process.job is not None}:
            for connection in wait(list(busy)):
                process, job = busy[connection]  # type: ignore[index]
                outcome = process.outcome(job)
                process.take(queue)
                yield outcome
    finally:
        for process in processes:
            process.stop()


def on_ray(jobs: Sequence[Job], begin: Begin | None = None) -> Iterator[CellOutcome]:
    """Measure jobs on the cluster that Ray finds ($RAY_ADDRESS, or one on this machine), else on a new local one.

    Every machine needs crce, and the folder of the cells at the same path.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("--ray needs Ray, which is not installed. Install it: pip install 'crce[ray]'") from error
    mine = not ray.is_initialized()
    if mine:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    try:
        device = jobs[0].device  # a cell takes one GPU, where there is one and the device allows it
        gpus = ray.cluster_resources().get("GPU", 0) if device == "auto" else float(device.startswith("cuda"))
        task = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=min(1.0, gpus))(_measure)
        pending = {task.remote(job, begin): job for job in jobs}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            job = pending.pop(done)
            try:
                outcome = ray.get(done)
            except ray.exceptions.RayError as error:
                outcome = CellOutcome(job.key, error=f"Ray gave up: {' '.join(str(error).split())[:300]}")
            if outcome.record is not None and job.record is None:
                why = f"it was measured, but {job.folder} is not on this machine. Put --cache on a shared disk."
                outcome = CellOutcome(job.key, error=why)
            yield outcome
    finally:
        if mine:
            ray.shutdown()


def _measure(job: Job, begin: Begin | None) -> CellOutcome:
    return _single_threaded(begin).measure(job)


@cache
def _single_threaded(begin: Begin | None) -> Worker:
    """The worker of a process that shares the machine with others; it keeps its model for the next job."""
    import torch

    torch.set_num_threads(1)
    if begin is not None:
        begin()
    return Worker()


class _Queue:
    """Waiting jobs; those that share base images go to one process as long as there is other work."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._groups: dict[Any, deque[Job]] = defaultdict(deque)
        self._owners: dict[Any, object] = {}
        for job in jobs:
            self._groups[job.group].append(job)

    def next(self, owner: object) -> Job | None:
        waiting = [group for group, jobs in self._groups.items() if jobs]
        if not waiting:
            return None
        own = [group for group in waiting if self._owners.get(group) is owner]
        free = [group for group in waiting if group not in self._owners]
        group = [*own, *free, max(waiting, key=lambda group: len(self._groups[group]))][0]
        self._owners.setdefault(group, owner)
        return self._groups[group].popleft()


class _WorkerProcess:
    def __init__(self, begin: Begin | None) -> None:
        self._begin = begin
        self._process: Any = None
        self.connection: Connection
        self.job: Job | None = None

    def take(self, queue: _Queue) -> None:
        """Send the process its next job, if there is one."""
        self.job = queue.next(self)
        if self.job is None:
            return
        if self._process is None:
            self.connection, other = _CONTEXT.Pipe()
            self._process = _CONTEXT.Process(target=_serve, args=(other, self._begin), daemon=True)
            self._process.start()
            other.close()
        with contextlib.suppress(ConnectionError):  # outcome() reports that the process died
            self.connection.send(self.job)

    def outcome(self, job: Job) -> CellOutcome:
        """The outcome of the job, or an error if its process died."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self._process = None
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            return CellOutcome(job.key, error=f"its process {how}. If memory ran out, use fewer --jobs.")

    def stop(self) -> None:
        """End the process; its current job continues from its last checkpoint the next time."""
        if self._process is None:
            return
        self.connection.close()  # ends a process that waits for a job
        if self.job is not None:
            self._process.terminate()
        self._process.join(TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, begin: Begin | None) -> None:
    from crce.training import Interrupted

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # releases locks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = _single_threaded(begin)
    while True:
        try:
            connection.send(worker.measure(connection.recv()))
        except (EOFError, ConnectionError, Interrupted, KeyboardInterrupt):
            return


def _end_with_parent() -> None:
    """End this process when its parent is gone: a parent that is killed can't do it."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
