"""One erasure in several processes, each on a device of its own, as `accelerate launch` and `torchrun` start them.

Process 0 runs the command as if it were alone: it samples, writes, logs and reports. The others load the same model
and get each step's batch from it, and what hardening finds. Every process computes the gradients of its share of the
rows; their sums move the adapter of each process alike. The network is not wrapped: an all-reduce of the adapter's
gradients over gloo is all it takes, as nothing else is trained.
"""

from __future__ import annotations

import logging
import os
import signal
from datetime import timedelta
from io import BytesIO
from typing import Any

import torch
from torch import distributed

from crce.errors import RunError
from crce.training.base_model import load_recorded


WAIT = timedelta(days=30)  # while process 0 measures, nothing comes; a launcher ends all when one has failed


def begin() -> int:
    """Join the other processes, and return the number of this one."""
    distributed.init_process_group("gloo", timeout=WAIT)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return distributed.get_rank()


def share() -> slice | None:
    """Which rows of a step are those of this process; None where it is the only one."""
    if not distributed.is_available() or not distributed.is_initialized():
        return None
    return slice(distributed.get_rank(), None, distributed.get_world_size())


def send(message: Any) -> None:
    """From process 0 to all others; None lets them end."""
    buffer = BytesIO()
    torch.save(message, buffer)
    distributed.broadcast_object_list([buffer.getvalue()])


def follow() -> None:
    """In a process beside process 0: take a share of the steps of each of its runs, until it ends.

    Raises:
        RunError: this process finds another version of the model.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # process 0 stops between steps
    logging.getLogger("crce").setLevel(logging.ERROR)  # and warns
    trainer: Any = None
    place: torch.device | str = "cpu"
    given: list[Any] = [None]
    while True:
        distributed.broadcast_object_list(given)
        match torch.load(BytesIO(given[0]), map_location=place, weights_only=False):
            case None:
                return
            case (int() as which, found):
                trainer.table.add_corefs(which, found)
            case (batch, random):
                trainer.generator.set_state(random.cpu())
                trainer.learn(batch)
            case (kind, info, sets, config, how, state):
                if trainer is not None:
                    trainer.close()
                backbone = load_recorded(info, **how)
                if backbone.revision != info["revision"]:
                    raise RunError(f"{info['model']!r} is {info['revision']} in process 0, here {backbone.revision}.")
                backbone.use_resolution(config.resolution)
                trainer, place = kind(backbone, sets, config), backbone.device
                trainer.load_state(*state)
