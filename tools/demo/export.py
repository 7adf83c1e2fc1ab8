"""Put trained weights into the package as fp16 safetensors: `python tools/demo/export.py`.

`--flow` puts those of the flow transformer there instead, from the averaged weights of its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import train_flow
from common import DEMO, WORK, load_checkpoint, split
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from train_autoencoder import build as build_autoencoder
from train_unet import build as build_unet
from train_unet import scheduler


TOKENS = (train_flow.SIDE // 2) ** 2  # of an image of the flow transformer


def write(folder: Path, parts: dict[str, tuple[Any, dict[str, torch.Tensor]]], levels: ConfigMixin) -> None:
    """Write networks with their states, and a scheduler."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (module, state) in parts.items():
        module.load_state_dict(state)
        save_file({k: v.half().contiguous() for k, v in module.state_dict().items()}, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(module.to_json_string(), encoding="utf-8")
    (folder / "scheduler.json").write_text(levels.to_json_string(), encoding="utf-8")


def export_flow(checkpoint: Path, folder: Path) -> None:
    tensors, facts = load_checkpoint(checkpoint)
    # crce reads the size of an image from the scheduler, as the pipeline's class knows that of FLUX.1 alone
    size = {"base_image_seq_len": TOKENS // 4, "max_image_seq_len": TOKENS}
    levels = FlowMatchEulerDiscreteScheduler.from_config(train_flow.scheduler().config, **size)
    write(folder, {"transformer": (train_flow.build(), split(tensors, "average"))}, levels)
    print(f"step {facts['step']}")


def export_demo(folder: Path) -> None:
    parts = {
        "unet": (build_unet(), split(load_checkpoint(WORK / "unet.safetensors")[0], "ema")),
        "vae": (build_autoencoder(), split(load_checkpoint(WORK / "autoencoder.safetensors")[0], "vae")),
    }
    write(folder, parts, scheduler())
    tensors, facts = load_checkpoint(WORK / "judge.safetensors")
    judge = split(tensors, "network")
    (folder / "judge.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    keep = {k: v if v.dtype == torch.int64 else v.half() for k, v in judge.items()}
    save_file({k: v.contiguous() for k, v in keep.items()}, folder / "judge.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flow", action="store_true", help="the flow transformer")
    parser.add_argument("--checkpoint", type=Path, default=train_flow.PATH, help="of the flow transformer")
    args = parser.parse_args()
    folder = DEMO / "weights" / "flow" if args.flow else DEMO / "weights"
    if args.flow:
        export_flow(args.checkpoint, folder)
    else:
        export_demo(folder)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        print(f"{path.name:24} {path.stat().st_size / 2**20:7.2f} MiB")


if __name__ == "__main__":
    main()
