"""What the training scripts of the bundled model share: paths, the world, the artwork, augmentation."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file, save_file


ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "src" / "crce" / "demo"
WORK = ROOT / "build" / "demo"
PIXELS = 64


def begin(parser: argparse.ArgumentParser, *, batch: int, lr: float) -> argparse.Namespace:
    """Add the flags that every training has, with these defaults, parse all, and set threads and seed of torch."""
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return args


def world() -> dict[str, Any]:
    return yaml.safe_load((DEMO / "world.yaml").read_text(encoding="utf-8"))


def load_artwork(sets: list[str] | None = None) -> dict[str, Any]:
    """Rendered icons: `rgba` uint8 (N, 4, 128, 128), `concept` (N,), `set` list[str], `icon` list[str]."""
    data = np.load(WORK / "artwork.npz", allow_pickle=False)
    keep = np.ones(len(data["concept"]), bool) if sets is None else np.isin(data["set"], sets)
    return {
        "rgba": torch.from_numpy(data["rgba"][keep]),
        "concept": torch.from_numpy(data["concept"][keep]),
        "set": data["set"][keep].tolist(),
        "icon": data["icon"][keep].tolist(),
    }


def augment(
    rgba: torch.Tensor, generator: torch.Generator, *, strength: float = 1.0, white: float = 0.5, flip: bool = True
) -> torch.Tensor:
    """Shift, scale, turn and flip icons and lay them on a light background.

    Args:
        rgba: uint8 icons, shape (B, 4, S, S), on the generator's device.
        strength: 0 only centres the icon; 1 is the training augmentation.
        white: share of pictures that keep a white background.
        flip: mirror half of the pictures.

    Returns:
        Pictures in [-1, 1], shape (B, 3, PIXELS, PIXELS).
    """
    b, device = rgba.shape[0], rgba.device

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(b, generator=generator, device=device)

    angle = uniform(-0.15, 0.15) * strength
    zoom = 1.06 + uniform(-0.06, 0.16) * strength
    dx, dy = uniform(-0.09, 0.09) * strength, uniform(-0.09, 0.09) * strength
    mirror = torch.where(torch.rand(b, generator=generator, device=device) < (0.5 if flip else 0.0), -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack([torch.stack([cos * mirror, -sin, dx], 1), torch.stack([sin * mirror, cos, dy], 1)], 1)
    x = rgba.float() / 255
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)
    # Sampling at twice the size and averaging keeps thin lines that bilinear sampling at 64 px would alias.
    grid = F.affine_grid(theta, [b, 4, 2 * PIXELS, 2 * PIXELS], align_corners=False)
    x = F.avg_pool2d(F.grid_sample(x, grid, align_corners=False), 2)
    plain = torch.rand(b, generator=generator, device=device) < white
    colour = 1 - 0.25 * torch.rand(b, 3, generator=generator, device=device) * strength
    colour = torch.where(plain[:, None], torch.ones_like(colour), colour)[:, :, None, None]
    return (x[:, :3] + (1 - x[:, 3:]) * colour) * 2 - 1


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and metadata in one file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata={"meta": json.dumps(meta)})
    partial.replace(path)


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as f:
        meta = json.loads(f.metadata()["meta"])
    return load_file(path), meta


def split(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}


def join(**parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{name}.{k}": v.clone() for name, part in parts.items() for k, v in part.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Adam moments as flat tensors, so that checkpoints need no pickle."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{k}": v for i, s in state.items() for k, v in s.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def sheet(pictures: torch.Tensor, columns: int, path: Path) -> None:
    """Save pictures in [-1, 1], shape (N, 3, H, W), as one contact sheet."""
    from PIL import Image

    n, _, h, w = pictures.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (h + 2), columns * (w + 2), 3), 200, np.uint8)
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for i, picture in enumerate(pixels):
        r, c = divmod(i, columns)
        canvas[r * (h + 2) : r * (h + 2) + h, c * (w + 2) : c * (w + 2) + w] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(path)
