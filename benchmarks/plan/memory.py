"""What `crce plan` says an erasure needs, beside what a GPU was seen to take.

    python benchmarks/plan/memory.py

writes memory.json beside this file: a row for each model and choice of settings. The networks have their published
sizes and random weights, since memory depends on nothing else; prompts are random states, and a step is a step of the
trainer. Measuring needs a CUDA GPU; rows already there are kept, and without a GPU only what is planned for them is
computed anew. The rows of "quantized" are planned alone: the least that a model in NF4 needs, in all, with CUDA's own.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from pathlib import Path
from typing import Any

import published
import torch

from crce.backbones.conditioning import Conditioning
from crce.backbones.memory_count import plan_memory
from crce.backbones.memory_plan import CONTEXT, GIB, MemoryOptions, MemoryPlan, Workload
from crce.backbones.meta_model import MetaModel, read_meta_model
from crce.concepts import atlas
from crce.files import write_json
from crce.training import Trainer, load_config


CARDS = (12, 24, 48)  # the choice for each is measured
RANK, POOL = 16, 2
QUANTIZED = (
    ("flux_dev", 512),
    *((name, 1024) for name in ("flux_dev", "z_image_turbo", "sd35_medium", "sdxl", "qwen_image")),
)
DTYPES = {"sd15": "float16", "sdxl": "float16"}  # the others take bfloat16


def read_plan(name: str, root: Path) -> MemoryPlan:
    """The plan of an erasure with the recipe for real models and a pool of two trajectories."""
    work = Workload("kv", "lora", RANK, rows=9, trajectories=POOL)
    return plan_memory(read_meta_model(str(model_folder(name, root))), work, dtype_of(name))


def model_folder(name: str, root: Path) -> Path:
    return root / name if (root / name).exists() else published.folder(name, root)


def dtype_of(name: str) -> torch.dtype:
    return getattr(torch, DTYPES.get(name, "bfloat16"))


def random_model(name: str, root: Path) -> MetaModel:
    """A model whose networks are on the GPU, with random weights."""
    meta = read_meta_model(str(model_folder(name, root)))
    for network in meta.networks().values():
        network.to(dtype_of(name)).to_empty(device="cuda")
        network.requires_grad_(False).eval()
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                torch.nn.init.normal_(tensor, std=0.02)
            else:
                tensor.zero_()
    return meta


def states(meta: MetaModel, count: int, dtype: torch.dtype) -> Conditioning:
    """Random states in the shape of encoded prompts."""
    empty = meta.conditioning(count, dtype)
    pooled = None if empty.pooled is None else torch.randn(empty.pooled.shape, dtype=dtype, device="cuda")
    mask = None if empty.mask is None else empty.mask.cuda()
    return Conditioning(torch.randn(empty.hidden.shape, dtype=dtype, device="cuda"), pooled, mask)


def measure(name: str, choice: MemoryOptions, root: Path) -> dict[str, Any]:
    """Peak memory of two steps, and of these and one decoded picture, with all networks on the GPU as in a run."""
    settings = {"pool": POOL, "ddim_steps": 4, "rank": RANK, "micro_batch": choice.micro_batch}
    config = load_config("sd15", settings | {"gradient_checkpointing": choice.gradient_checkpointing})
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    meta = random_model(name, root)
    backbone = meta.backbone
    backbone.encode = lambda prompts: states(meta, len(prompts), dtype_of(name))  # type: ignore[method-assign]
    trainer = Trainer(backbone, [atlas()["cat"]], config)
    for _ in range(2):
        trainer.step()
    trainer.close()
    steps = torch.cuda.max_memory_allocated()
    with torch.no_grad():
        backbone.decode(torch.randn(1, *backbone.latent_shape, device="cuda"))
    return {
        "model": name,
        "micro_batch": choice.micro_batch,
        "gradient_checkpointing": choice.gradient_checkpointing,
        "measured": torch.cuda.max_memory_allocated(),
        "measured_steps": steps,
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }


def beside(row: dict[str, Any], plan: MemoryPlan) -> dict[str, Any]:
    """The row with what is planned for it; CUDA's own memory is in neither number."""
    choice = MemoryOptions(row["micro_batch"], row["gradient_checkpointing"])
    steps = sum(plan.weights.values()) + plan.adapter + plan.steps(choice)
    return row | {"planned": int(plan.need(choice) - CONTEXT), "planned_steps": steps}


def quantized(name: str, side: int, root: Path) -> dict[str, Any]:
    """The options with which a model in NF4 needs least, for images of `side` pixels, and what it then needs."""
    meta = read_meta_model(str(model_folder(name, root)))
    meta.backbone.use_resolution(side)
    work = Workload("kv", "lora", RANK, rows=9, trajectories=POOL)
    plan = plan_memory(meta, work, torch.bfloat16, "nf4")
    least = plan.least()
    options = {
        "micro_batch": least.micro_batch,
        "gradient_checkpointing": least.gradient_checkpointing,
        "offload": least.offload,
    }
    sizes = {"weights": plan.weights, "peak": plan.need(least), "system": plan.system(least)}
    return {"model": name, "resolution": side, "quantize": "nf4", **options, **sizes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(published.MODELS), choices=list(published.MODELS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plans = {name: read_plan(name, root) for name in {*args.models, *(row["model"] for row in rows)}}
        rows = [beside(row, plans[row["model"]]) for row in rows]
        least = [quantized(name, side, root) for name, side in QUANTIZED]
        write_json(args.out, {"rows": rows, "quantized": least})
        done = {(row["model"], row["micro_batch"], row["gradient_checkpointing"]) for row in rows}
        for name in args.models if torch.cuda.is_available() else ():
            wanted = [plans[name].choose(size) for size in CARDS]
            for choice in dict.fromkeys([c for c in wanted if c and not c.offload] + [MemoryOptions(1, True)]):
                if (name, choice.micro_batch, choice.gradient_checkpointing) in done:
                    continue
                if plans[name].need(choice) > torch.cuda.mem_get_info()[0]:
                    print(f"{name}: {choice} does not fit here")
                    continue
                rows.append(beside(measure(name, choice, root), plans[name]))
                write_json(args.out, {"rows": rows, "quantized": least})
                gc.collect()
    for row in rows:
        told = f"{row['planned'] / GIB:.2f} planned, {row['measured'] / GIB:.2f} GiB measured"
        print(f"{row['model']:16} {row['micro_batch']} {row['gradient_checkpointing']!s:5} {told}")
    for row in least:
        print(f"{row['model']:16} {row['resolution']} nf4 {row['peak'] / GIB:.2f} GiB planned")


if __name__ == "__main__":
    main()
