"""Time one CRCE step against the official sequential one on the same model: `python benchmarks/speed/step.py`.

Both train the same tensors of the bundled model (queries and keys of cross-attention) with M = 5 and N = 3 on a
50-step grid with guidance 3, and take turns, so that a change of the machine's speed hits all alike. Fresh
trajectories have the same lengths for all. Writes step.json beside this file; quote its ratios, not its seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import reference
import torch
from diffusers import DDIMScheduler

from crce.backbones import load_backbone
from crce.concepts import find_concepts
from crce.files import write_json
from crce.training import Trainer, load_config


M, N, GRID, GUIDANCE = 5, 3, 50, 3.0


def ddim(pipe: Any, steps: int) -> DDIMScheduler:
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps)
    return scheduler


class Official:
    """The official step with its own weights, optimizer and trajectory."""

    def __init__(self, trainer: Trainer, concepts) -> None:
        self.pipe = trainer.backbone.pipe
        self.null = reference.encode(self.pipe, "")
        self.target = reference.encode(self.pipe, concepts.target)
        self.corefs = [(r.text, r.certainty) for r in concepts.train_corefs[:M]]
        self.retains = [(r.text, r.certainty) for r in concepts.train_retains[:N]]
        self.trained = {n: p for n, p in self.pipe.unet.named_parameters() if p.requires_grad}
        self.first = {n: p.detach().clone() for n, p in self.trained.items()}
        self.optimizer = torch.optim.Adam(self.trained.values(), lr=2e-5)
        self.scheduler, self.fine = (ddim(self.pipe, steps) for steps in (GRID, 1000))
        self.shape = (1, *trainer.backbone.latent_shape)

    def step(self, k: int) -> None:
        x_t = reference.partial_trajectory(
            self.pipe, self.scheduler, self.target, torch.randn(self.shape), k, GUIDANCE
        )
        t = self.fine.timesteps[int(k * 1000 / GRID)]
        terms = reference.loss_terms(
            self.pipe, self.trained, self.first, self.null, None, self.target, self.corefs, self.retains, x_t, t
        )
        self.optimizer.zero_grad()
        sum(terms).backward()
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=24, help="timed steps of each kind")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    concepts = find_concepts("cat")
    torch.manual_seed(0)

    def trainer(source: str) -> Trainer:
        settings = {"x_t_source": source, "corefs_per_step": M, "retains_per_step": N, "ddim_steps": GRID}
        return Trainer(load_backbone("demo", device="cpu"), [concepts], load_config("paper", settings))

    official_trainer, student, rolling = trainer("student"), trainer("student"), trainer("rolling")
    official = Official(official_trainer, concepts)
    # Lengths of the fresh trajectories: evenly spread over the official range 1..48, in a shuffled order.
    lengths = [1 + round(i * (GRID - 3) / (args.rounds - 1)) for i in range(args.rounds)]
    lengths = [lengths[i] for i in torch.randperm(args.rounds).tolist()]
    queue = iter([1, *lengths])
    student._fresh_index = lambda: next(queue)  # type: ignore[method-assign]
    official.step(1)
    student.step()
    for _ in range(rolling.config.pool + 1):  # past the filling of the pool and its first common move
        rolling.step()
    seconds: dict[str, list[float]] = {"official": [], "student": [], "rolling": []}
    for k in lengths:
        for name, step in (
            ("official", lambda k=k: official.step(k)),
            ("student", student.step),
            ("rolling", rolling.step),
        ):
            clock = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - clock)
    mean = {name: statistics.fmean(values) for name, values in seconds.items()}
    result = {
        "ratios": {name: round(mean["official"] / mean[name], 2) for name in ("student", "rolling")},
        "mean_ms": {name: round(value * 1000, 1) for name, value in mean.items()},
        "rounds": args.rounds,
        "M": M,
        "N": N,
        "ddim_steps": GRID,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    write_json(args.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
