"""The training loops that people use, side by side on the bundled model: `python benchmarks/speed/loops.py`.

    official    one CRCE step as the official code makes it: a fresh trajectory of the student, every prompt alone
    esd         the newest ESD, as in its own code: a trajectory of the frozen model, the target alone
    leco        LECO: a trajectory of the student, and three predictions of the frozen model, each with guidance
    ileco       iLECO: noise alone, one prediction of the frozen model and one of the student
    fresh       ours, x_t from a fresh trajectory of the student as in the official code
    crce        ours, as `crce erase` trains the bundled model, but for the layers

All of them train the same LoRA, on keys and values, with the optimizer and the falling rate of the recipe for the
bundled model, so that the loops alone differ.

Writes loops.json beside this file. Its rows compare steps: {loop, model, seconds_ratio, forwards, backwards, calls,
flops, peak_bytes}, with the latents that pass through the denoiser, those that gradients go back from, the calls that
they take, and their arithmetic; a ratio is the official loop's number divided by the row's. Steps take turns, and a
fresh trajectory has the lengths of the official range. Rows of published models have the flops of these numbers on
their denoisers without weights. The machine should have nothing else to do.

`--quality` measures, for every seed, after how many steps H reaches 95 % of what the official loop has at its end;
with the seconds of a step that is time_to_quality_ratio. H is that of the end, on a target that no setting was chosen
on. What is measured already is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import reference
import torch
from diffusers import DDIMScheduler
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from crce.backbones import load_backbone
from crce.backbones.loading import quiet_diffusers
from crce.backbones.meta_model import read_meta_model
from crce.backbones.scopes import scope_modules
from crce.concepts import find_concepts, write_sets
from crce.evaluate import evaluate
from crce.files import write_json
from crce.training import Erasure, Trainer, load_config
from crce.training.run_folder import new_info, write_adapter, write_run


GRID, GUIDANCE, MEAN_LENGTH = 50, 3.0, 24  # the official trajectory has 1 to 48 of 50 steps
SHARE = 0.95  # of the official loop's last H
CHECKPOINTS = (5, 10, 20, 40, 60, 120, 240)  # steps, and the last of a loop
PUBLISHED = (
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-xl-base-1.0",
    "stabilityai/stable-diffusion-3.5-medium",
    "black-forest-labs/FLUX.1-dev",
)
PEERS = {"corefs_per_step": 5, "retains_per_step": 3}  # of the official step


class Loop:
    """A loop on a bundled model of its own; `trainer` holds the LoRA, the optimizer, and the rows of our own loops."""

    def __init__(self, name: str, concept: str, seed: int, steps: int) -> None:
        own: dict[str, Any] = {"seed": seed, "steps": steps, "layers": "kv"}
        if name != "crce":
            own |= {**PEERS, "x_t_source": "student", "x_t_prompts": "target", "ddim_steps": GRID}
        self.name, self.steps = name, steps
        self.concepts = find_concepts(concept)
        with quiet_diffusers():
            self.trainer = Trainer(load_backbone("demo", device="cpu"), [self.concepts], load_config("demo", own))
        self.pipe = self.trainer.backbone.pipe
        self.trained = {n: p for n, p in self.pipe.unet.named_parameters() if p.requires_grad}
        self.first = {n: p.detach().clone() for n, p in self.trained.items()}
        self.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        self.scheduler.set_timesteps(GRID)
        self.target, self.null = (reference.encode(self.pipe, text) for text in (self.concepts.target, ""))
        self.shape = (1, *self.trainer.backbone.latent_shape)
        self.lengths = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)

    def step(self, k: int | None = None) -> None:
        """One step; a fresh trajectory has k steps, without k a random number of them."""
        if self.name in ("fresh", "crce"):
            if k is not None:
                self.trainer.sampler.fresh_index = lambda: k  # type: ignore[method-assign]
            self.trainer.step()
            return
        if k is None:
            k = 1 + int(torch.randint(GRID - 2, (), generator=self.lengths))
        optimizer, count = self.trainer.optimizer, self.trainer.step_count
        for group in optimizer.param_groups:
            group["lr"] = self.trainer.config.learning_rate * (1 + math.cos(math.pi * count / self.steps)) / 2
        loss = getattr(self, self.name)(k)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        self.trainer.step_count += 1

    def official(self, k: int) -> torch.Tensor:
        x_t, t = self.trajectory(k), self.scheduler.timesteps[k]
        corefs, retains = (
            [(r.text, r.certainty) for r in related[: PEERS[f"{name}_per_step"]]]
            for name, related in (("corefs", self.concepts.train_corefs), ("retains", self.concepts.train_retains))
        )
        terms = reference.loss_terms(
            self.pipe, self.trained, self.first, self.null, None, self.target, corefs, retains, x_t, t
        )
        return sum(terms, torch.zeros(()))

    def esd(self, k: int) -> torch.Tensor:
        with torch.no_grad(), self.trainer.adapter.disabled():
            x_t, t = self.trajectory(k), self.scheduler.timesteps[k]
            e_target, e_null = self.alone(x_t, t), self.alone(x_t, t, null=True)
        return torch.nn.functional.mse_loss(self.alone(x_t, t), e_null - (e_target - e_null))

    def leco(self, k: int) -> torch.Tensor:
        x_t, t = self.trajectory(k), self.scheduler.timesteps[k]
        with torch.no_grad(), self.trainer.adapter.disabled():
            e_target, e_neutral, e_null = (
                reference.predict(self.pipe, states, x_t, t) for states in (self.target, self.null, self.null)
            )
        student = reference.predict(self.pipe, self.target, x_t, t)
        return torch.nn.functional.mse_loss(student, e_neutral - (e_target - e_null))

    def ileco(self, k: int) -> torch.Tensor:
        x_t, t = torch.randn(self.shape), self.scheduler.timesteps[k]
        with torch.no_grad(), self.trainer.adapter.disabled():
            e_null = self.alone(x_t, t, null=True)
        return torch.nn.functional.mse_loss(self.alone(x_t, t), e_null)

    def trajectory(self, k: int) -> torch.Tensor:
        noise = torch.randn(self.shape)
        return reference.partial_trajectory(self.pipe, self.scheduler, self.target, noise, k, GUIDANCE)

    def alone(self, x_t: torch.Tensor, t: torch.Tensor, *, null: bool = False) -> torch.Tensor:
        """The prediction for the target or the empty prompt, without guidance."""
        return self.pipe.unet(x_t, t, encoder_hidden_states=self.target[:1] if null else self.target[1:]).sample

    def quality(self) -> float | None:
        """H of the weights as they are."""
        trainer, backbone = self.trainer, self.trainer.backbone
        info = new_info([self.concepts], trainer.config, backbone, None, 0.0) | {"status": "finished"}
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_sets(folder / "concepts.yaml", [self.concepts])
            write_adapter(folder, trainer.adapter.state(), trainer.adapter.metadata(), [self.concepts], info)
            write_run(folder, info)
            return evaluate(Erasure.load(folder), images_per_prompt=4, device="cpu").summary["H"]["value"]


LOOPS = {"official": 60, "esd": 60, "leco": 60, "ileco": 240, "fresh": 60, "crce": 120}


@contextmanager
def passes(network: torch.nn.Module) -> Any:
    """Inside, latents that pass through a network, those that gradients go back from, and calls."""
    found = {"forwards": 0, "backwards": 0, "calls": 0}

    def count(_: Any, args: tuple[Any, ...]) -> None:
        found["forwards"] += len(args[0])
        found["backwards"] += len(args[0]) * torch.is_grad_enabled()
        found["calls"] += 1

    handle = network.register_forward_pre_hook(count)
    try:
        yield found
    finally:
        handle.remove()


def count_passes(loop: Loop) -> dict[str, float]:
    """Passes of a mean step and their arithmetic, once the pools are filled."""
    rounds = loop.trainer.config.pool if loop.name == "crce" else 1  # the pools move on once in as many steps
    if loop.name == "crce":
        loop.step(MEAN_LENGTH)
    with passes(loop.pipe.unet) as found, FlopCounterMode(display=False) as counter:
        for _ in range(rounds):
            loop.step(MEAN_LENGTH)
    return {name: value / rounds for name, value in found.items()} | {"flops": counter.get_total_flops() / rounds}


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that tensors take which are made meanwhile."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    moves = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    here = most = 0
    for event in sorted(moves, key=lambda event: event.start_ns()):
        here += event.nbytes()
        most = max(most, here)
    return most


def seconds_of_steps(loops: dict[str, Loop], rounds: int) -> dict[str, float]:
    """Mean seconds of a step of each loop, of steps that take turns."""
    found: dict[str, list[float]] = {name: [] for name in loops}
    lengths = [1 + round(i * (GRID - 3) / (rounds - 1)) for i in range(rounds)]  # of the official range
    for k in [lengths[i] for i in torch.randperm(rounds).tolist()]:
        for name, loop in loops.items():
            clock = time.perf_counter()
            loop.step(k)
            found[name].append(time.perf_counter() - clock)
    return {name: statistics.fmean(values) for name, values in found.items()}


def flops_of_passes(model: str) -> tuple[int, int]:
    """Arithmetic of one forward and of one backward pass, for one prompt, of a published model with its layers."""
    made = read_meta_model(model)
    network = made.backbone.network.requires_grad_(False)
    layers = "text" if made.backbone.component == "transformer" else "kv"
    for path in scope_modules(made.backbone, layers, None):
        network.get_submodule(path).requires_grad_(True)
    x_t = torch.empty(1, *made.backbone.latent_shape, device="meta")
    counts = []
    with FlopCounterMode(display=False) as counter:
        out = made.backbone._forward(x_t, torch.empty(1, device="meta"), made.conditioning(1, torch.float32), None)
        counts.append(counter.get_total_flops())
        out.sum().backward()
        counts.append(counter.get_total_flops())
    return counts[0], counts[1] - counts[0]


def measure_steps(concept: str, rounds: int) -> list[dict[str, Any]]:
    loops = {name: Loop(name, concept, 0, steps) for name, steps in LOOPS.items()}
    counts = {name: count_passes(loop) for name, loop in loops.items()}
    peaks = {name: peak_bytes(lambda loop=loop: loop.step(MEAN_LENGTH)) for name, loop in loops.items()}
    seconds = seconds_of_steps(loops, rounds)
    rows = [
        {"loop": name, "model": "demo", "seconds_ratio": round(seconds["official"] / seconds[name], 2)}
        | counts[name]
        | {"peak_bytes": peaks[name]}
        for name in loops
    ]
    for model in PUBLISHED:
        forward, backward = flops_of_passes(model)
        for name in loops:
            own = {key: counts[name][key] for key in ("forwards", "backwards", "calls")}
            own["flops"] = own["forwards"] * forward + own["backwards"] * backward
            rows.append({"loop": name, "model": model} | own)
    return rows


def measure_quality(name: str, concept: str, seed: int) -> dict[str, Any]:
    """H at the checkpoints of one run."""
    loop, found = Loop(name, concept, seed, LOOPS[name]), []
    for i in range(LOOPS[name]):
        loop.step()
        if i + 1 in (*CHECKPOINTS, LOOPS[name]):
            found.append({"step": i + 1, "H": loop.quality()})
    return {"loop": name, "concept": concept, "seed": seed, "checkpoints": found}


def time_to_quality(runs: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    """How many times sooner than the official loop one reaches 95 % of its last H, and the loop's own last H.

    The ratio is the geometric mean of the seeds, None where one of them does not reach it; `reached` says how many do.
    """
    found = {(run["loop"], run["concept"], run["seed"]): run["checkpoints"] for run in runs}
    ratios, last = [], []
    for (loop, concept, seed), official in found.items():
        own = found.get((row["loop"], concept, seed))
        if loop != "official" or own is None:
            continue
        bar = SHARE * official[-1]["H"]
        first, steps = (next((c["step"] for c in run if (c["H"] or 0) >= bar), None) for run in (official, own))
        ratios.append(first / steps * row["seconds_ratio"] if first and steps else None)
        last.append(own[-1]["H"] or 0)
    reached = [ratio for ratio in ratios if ratio is not None]
    whole = len(reached) == len(ratios) > 0
    return {
        "time_to_quality_ratio": round(statistics.geometric_mean(reached), 2) if whole else None,
        "reached": f"{len(reached)} of {len(ratios)}",
        "H": round(statistics.fmean(last), 4) if last else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24, help="timed steps of each loop")
    parser.add_argument("--quality", action="store_true", help="measure the quality of the loops instead")
    parser.add_argument("--concept", default="dog")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=[name for name in LOOPS if name != "fresh"])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    data: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {"rows": [], "runs": []}
    if not args.quality and not data["rows"]:
        data["rows"] = measure_steps(args.concept, args.rounds)
        data |= {"rounds": args.rounds, "threads": torch.get_num_threads(), "torch": torch.__version__}
    for seed in args.seeds if args.quality else ():
        for name in args.loops:
            if not any(
                (run["loop"], run["seed"], run["concept"]) == (name, seed, args.concept) for run in data["runs"]
            ):
                data["runs"].append(measure_quality(name, args.concept, seed))
                print(data["runs"][-1], flush=True)
                write_json(args.out, data)
    for row in data["rows"]:
        if row["model"] == "demo":
            row |= time_to_quality(data["runs"], row)
    write_json(args.out, data)


if __name__ == "__main__":
    main()
