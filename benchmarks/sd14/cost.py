"""What the grid of corefconcept.yaml costs on Stable Diffusion 1.4: passes through its denoiser, and their arithmetic.

    python benchmarks/sd14/cost.py

writes cost.json beside this file. Passes of the training are counted while the grid's own settings train the bundled
model for a few steps, since they do not depend on the model; a pass of Stable Diffusion's denoiser is counted on
tensors without content. A backward pass takes twice a forward's arithmetic.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from crce.backbones import load_backbone
from crce.bench import expand, read_grid
from crce.bench.grid import BenchmarkGrid
from crce.concepts import find_concepts, write_sets
from crce.files import write_json
from crce.methods import METHODS
from crce.training import erase


HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "plan"))
SETS = {"object.json": 11, "ip.json": 8, "celebrity.json": 8}  # as published
SHORT, LONG = 6, 12  # steps whose difference is what a step costs
RATE = 100e12  # operations a second that half-precision training sustains on a large GPU, taken low
GROUPS = 6  # of prompts in a report: the target, and five lists of phrases


def flops_of_a_pass() -> int:
    """Floating-point operations of Stable Diffusion's denoiser for one latent."""
    import published

    _, _, config = published.MODELS["sd15"][1]["unet"]
    with torch.device("meta"):
        network = UNet2DConditionModel(**config)
        latents, states = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 768)
        with FlopCounterMode(display=False) as counter:
            network(latents, torch.zeros((), dtype=torch.long), states)
    return counter.get_total_flops()


@contextmanager
def counted(network: torch.nn.Module) -> Any:
    """Inside, latents that pass: all, and those that gradients go back from."""
    passes = {"all": 0, "backward": 0}

    def count(_: Any, args: tuple[Any, ...]) -> None:
        passes["all"] += len(args[0])
        passes["backward"] += len(args[0]) * torch.is_grad_enabled()

    handle = network.register_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def grid_of(concept: str) -> BenchmarkGrid:
    """The grid with one set in place of the published ones, which are not part of this repository."""
    with tempfile.TemporaryDirectory() as folder:
        text = (HERE / "corefconcept.yaml").read_text(encoding="utf-8")
        first, *others = SETS
        write_sets(Path(folder) / "set.yaml", [find_concepts(concept)])
        text = text.replace(f"[{', '.join([first, *others])}]", "[set.yaml]")
        (Path(folder) / "grid.yaml").write_text(text, encoding="utf-8")
        return read_grid(Path(folder) / "grid.yaml")


def training(config: Any, backbone: Any) -> dict[str, float]:
    """Passes of a whole training, from those of two short ones."""
    if METHODS[config.method].solved:
        return {"all": 0, "backward": 0}
    found = []
    for steps in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as folder, counted(backbone.network) as passes:
            short = config.model_copy(update={"steps": steps})
            erase(find_concepts("cat"), config=short, backbone=backbone, out=Path(folder) / "run")
        found.append(passes)
    per_step = {name: (found[1][name] - found[0][name]) / (LONG - SHORT) for name in found[0]}
    return {name: found[0][name] + per_step[name] * (config.steps - SHORT) for name in per_step}


def main() -> None:
    grid = grid_of("cat")
    flops = flops_of_a_pass()
    backbone = load_backbone("demo", device="cpu", dtype="float32")
    how = grid.evaluation
    pictures = how["images_per_prompt"] * (1 + (GROUPS - 1) * how["phrases_per_group"])
    drawing = 2 * how["steps"] * pictures  # with guidance each step passes twice
    rows = []
    for cell in expand(grid):
        passes = training(cell.config, backbone)
        total = passes["all"] + 2 * passes["backward"] + drawing
        row = {"row": cell.row, "training": round(passes["all"]), "backward": round(passes["backward"])}
        rows.append(row | {"drawing": drawing, "petaflop": round(total * flops / 1e15, 2)})
        print(rows[-1], flush=True)
    targets = sum(SETS.values())
    petaflop = targets * (
        sum(row["petaflop"] for row in rows) + drawing * flops / 1e15
    )  # the base draws once a target
    data = {
        "flops_of_a_pass": flops,
        "targets": targets,
        "cells": targets * len(rows),
        "rows": rows,
        "petaflop": round(petaflop),
        "hours_at_100_teraflops": round(petaflop * 1e15 / RATE / 3600, 1),
    }
    write_json(HERE / "cost.json", data)


if __name__ == "__main__":
    main()
