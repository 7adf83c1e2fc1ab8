"""Put trained weights into the package as fp16 safetensors: `python tools/demo/export.py`."""

from __future__ import annotations

import json

import torch
from common import DEMO, WORK, load_checkpoint, split
from safetensors.torch import save_file
from train_autoencoder import build as build_autoencoder
from train_unet import build as build_unet
from train_unet import scheduler


def main() -> None:
    folder = DEMO / "weights"
    folder.mkdir(exist_ok=True)
    parts = {
        "unet": (build_unet(), split(load_checkpoint(WORK / "unet.safetensors")[0], "ema")),
        "vae": (build_autoencoder(), split(load_checkpoint(WORK / "autoencoder.safetensors")[0], "vae")),
    }
    for name, (module, state) in parts.items():
        module.load_state_dict(state)
        save_file({k: v.half().contiguous() for k, v in module.state_dict().items()}, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(module.to_json_string(), encoding="utf-8")
    (folder / "scheduler.json").write_text(scheduler().to_json_string(), encoding="utf-8")
    tensors, facts = load_checkpoint(WORK / "judge.safetensors")
    judge = split(tensors, "network")
    (folder / "judge.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    keep = {k: v if v.dtype == torch.int64 else v.half() for k, v in judge.items()}
    save_file({k: v.contiguous() for k, v in keep.items()}, folder / "judge.safetensors")
    for path in sorted(folder.iterdir()):
        print(f"{path.name:24} {path.stat().st_size / 2**20:7.2f} MiB")


if __name__ == "__main__":
    main()
