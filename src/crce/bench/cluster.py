"""Cells on a Ray cluster, which distributes them, and repeats those whose process or machine died."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crce.bench.planning import Job
from crce.errors import ConfigError


if TYPE_CHECKING:
    from crce.bench.worker import CellOutcome, Worker

RETRIES = 3  # of a cell whose process or machine died

_here = threading.local()  # holds the worker of a Ray process, with its model


def on_ray(jobs: Sequence[Job], begin: Callable[[], object] | None = None) -> Iterator[CellOutcome]:
    """Measure jobs on the cluster that Ray finds ($RAY_ADDRESS, or one on this machine), else on a new local one.

    Every machine needs crce, and the folder of the cells at the same path.

    Args:
        jobs: jobs to measure.
        begin: called first in each process; must be importable there.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("--ray needs Ray, which is not installed. Install it: pip install 'crce[ray]'") from error
    from crce.bench.worker import CellOutcome

    mine = not ray.is_initialized()
    if mine:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    try:
        task = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=_gpus(jobs[0].device, ray))(_measure)
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


def _measure(job: Job, begin: Callable[[], object] | None) -> CellOutcome:
    """Measure one job in a Ray process, which keeps its model for the next."""
    worker: Worker | None = getattr(_here, "worker", None)
    if worker is None:
        import torch

        from crce.bench.worker import Worker as NewWorker

        torch.set_num_threads(1)
        if begin is not None:
            begin()
        worker = _here.worker = NewWorker()
    return worker.measure(job)


def _gpus(device: str, ray: Any) -> float:
    """GPUs for each cell: one, where there is one and the device allows it."""
    if device == "auto":
        return min(1.0, ray.cluster_resources().get("GPU", 0))
    return 1.0 if device.startswith("cuda") else 0.0
