"""Processes side by side on this machine, each with a model of its own and one thread."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from crce.bench.planning import Job
from crce.bench.worker import Outcome, Worker


Begin = Callable[[], object]  # called in each process before its first cell
PATIENCE = 10  # seconds that a process has to end
_CONTEXT = multiprocessing.get_context("spawn")  # a forked process would share what torch and a GPU have begun


def one_by_one(jobs: Sequence[Job], on_step: Callable[[Job, int, int], object] | None = None) -> Iterator[Outcome]:
    """Measure jobs in this process."""
    worker = Worker(on_step)
    for job in jobs:
        yield worker.measure(job)


def side_by_side(jobs: Sequence[Job], count: int, begin: Begin | None = None) -> Iterator[Outcome]:
    """Measure jobs in processes, and yield each outcome as soon as it is there.

    A process that dies takes its cell with it and no other: the cell has failed, and a new process goes on.

    Args:
        jobs: what is to be measured.
        count: how many processes.
        begin: called in each of them at its start; must be importable there.
    """
    queue = _Queue(jobs)
    lanes = [_Lane(begin) for _ in range(min(count, len(jobs)))]
    try:
        for lane in lanes:
            lane.take(queue)
        while busy := {lane.connection: (lane, lane.job) for lane in lanes if lane.job is not None}:
            for connection in wait(list(busy)):
                lane, job = busy[connection]  # type: ignore[index]
                outcome = lane.outcome(job)
                lane.take(queue)
                yield outcome
    finally:
        for lane in lanes:
            lane.stop()


class _Queue:
    """Jobs that wait; those that draw the same base pictures go to one process as long as there is other work."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._groups: dict[Any, deque[Job]] = defaultdict(deque)
        self._owners: dict[Any, object] = {}
        for job in jobs:
            self._groups[job.group].append(job)

    def next(self, owner: object) -> Job | None:
        """The next job for a process."""
        open_groups = [group for group, jobs in self._groups.items() if jobs]
        if not open_groups:
            return None
        own = [group for group in open_groups if self._owners.get(group) is owner]
        free = [group for group in open_groups if group not in self._owners]
        group = (own or free or [max(open_groups, key=lambda g: len(self._groups[g]))])[0]
        self._owners.setdefault(group, owner)
        return self._groups[group].popleft()


class _Lane:
    """A process and the job that it is at."""

    def __init__(self, begin: Begin | None) -> None:
        self._begin = begin
        self._process: Any = None
        self.connection: Connection
        self.job: Job | None = None

    def take(self, queue: _Queue) -> None:
        """Give the process its next job, if there is one."""
        self.job = queue.next(self)
        if self.job is None:
            return
        if self._process is None:
            self.connection, other = _CONTEXT.Pipe()
            self._process = _CONTEXT.Process(target=_serve, args=(other, self._begin), daemon=True)
            self._process.start()
            other.close()
        with contextlib.suppress(ConnectionError):  # that it died is told by outcome()
            self.connection.send(self.job)

    def outcome(self, job: Job) -> Outcome:
        """What came of the job; that its process died, if it did."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self._process = None
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            return Outcome(job.key, error=f"its process {how}. If memory ran out, use fewer --jobs.")

    def stop(self) -> None:
        """End the process; a cell that it is at goes on from its last checkpoint the next time."""
        if self._process is None:
            return
        self.connection.close()  # which ends a process that waits for its next job
        if self.job is not None:
            self._process.terminate()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, begin: Begin | None) -> None:
    """The life of a process: jobs come, outcomes go."""
    import torch

    from crce.training import Interrupted

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that locks are let go
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    if begin is not None:
        begin()
    worker = Worker()
    while True:
        try:
            job = connection.recv()
            connection.send(worker.measure(job))
        except (EOFError, ConnectionError, Interrupted, KeyboardInterrupt):
            return


def _end_with_parent() -> None:
    """A parent that is killed can't end its processes: they notice."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
