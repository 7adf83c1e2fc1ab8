"""Train the judge of styles on the artwork: `python tools/demo/train_style_judge.py`.

It tells by which set of icons a picture is drawn, and never sees a generated picture. The bundled model draws softly
and in strong colours, so half of the pictures have passed through its autoencoder, with their latents made larger,
smoothed and roughened. A style is colours, outlines and shades, so those change little. Concepts that it never saw
test it; the scenes of styles are not among those, and are seen more often than other concepts. Everything lies on the
device from the start, and batches are made there.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from common import (
    DEMO,
    PIXELS,
    ROOT,
    WORK,
    augment,
    begin,
    join,
    load_artwork,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    split,
    world,
)
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from torch.nn import functional as F

from crce.judges.emoji import STYLE_WIDTHS, EmojiNetwork


TEST_CONCEPTS = 20
SHARES = (0.3, 0.5, 0.2)  # of other icons of the sets, of the world's concepts, and of those that are scenes


def scene_concepts(w: dict[str, Any]) -> list[int]:
    """Concepts that styles are shown in."""
    kinds = yaml.safe_load((ROOT / "src" / "crce" / "training" / "kinds.yaml").read_text(encoding="utf-8"))
    scenes = {scene.split(" ", 1)[1] for scene in kinds["style"]["scenes"]}
    return [i for i, concept in enumerate(w["concepts"]) if not scenes.isdisjoint(concept["names"])]


def test_concepts(w: dict[str, Any]) -> list[int]:
    """Concepts that only test the judge."""
    free = sorted(set(range(len(w["concepts"]))) - set(scene_concepts(w)))
    return sorted(random.Random(0).sample(free, TEST_CONCEPTS))


def load_autoencoder(device: torch.device) -> AutoencoderTiny:
    """The bundled autoencoder, frozen."""
    config = AutoencoderTiny.load_config(DEMO / "weights" / "vae.json")
    vae = AutoencoderTiny.from_config(config)
    vae.load_state_dict({k: v.float() for k, v in load_file(DEMO / "weights" / "vae.safetensors").items()})
    return vae.to(device).eval().requires_grad_(False)


@torch.inference_mode()
def soften(vae: AutoencoderTiny, x: torch.Tensor, g: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """Pictures in [-1, 1], shape (B, 3, PIXELS, PIXELS), as the autoencoder brings them back.

    Args:
        strength: 0 only encodes and decodes; 1 also changes the latents, as guidance and a small denoiser do.
    """
    z = vae.encoder(x)
    b = len(z)
    large, smooth, rough = (torch.rand(b, 1, 1, 1, generator=g, device=z.device) * strength for _ in range(3))
    even = F.avg_pool2d(F.pad(z, (1, 1, 1, 1), mode="replicate"), 3, 1)
    z = (1 + 0.4 * large) * (z + 0.4 * smooth * (even - z))
    z = z + 0.5 * rough * torch.randn(z.shape, generator=g, device=z.device)
    return vae.decoder(z).clamp(-1, 1)


def to_bytes(x: torch.Tensor) -> torch.Tensor:
    return ((x + 1) * 127.5).round().clamp(0, 255).byte()


def from_bytes(x: torch.Tensor) -> torch.Tensor:
    return x.float() / 127.5 - 1


def make_bank(vae: AutoencoderTiny, rgba: torch.Tensor, views: int, g: torch.Generator) -> torch.Tensor:
    """Views of every icon through the autoencoder: uint8, shape (views, N, 3, PIXELS, PIXELS)."""
    bank = torch.empty(views, len(rgba), 3, PIXELS, PIXELS, dtype=torch.uint8, device=rgba.device)
    for view in bank:
        for i in range(0, len(rgba), 32):
            view[i : i + 32] = to_bytes(soften(vae, augment(rgba[i : i + 32], g, strength=0.7), g))
    return bank


def tint(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Mirror, shift, tint, blur and roughen pictures in [-1, 1], shape (B, 3, H, W), so little that styles stay."""
    b, device = len(x), x.device

    def uniform(low: float, high: float, channels: int = 1) -> torch.Tensor:
        return low + (high - low) * torch.rand(b, channels, 1, 1, generator=g, device=device)

    mirrored = torch.rand(b, 1, 1, 1, generator=g, device=device) < 0.5
    x = torch.where(mirrored, x.flip(3), x)
    dx, dy = torch.randint(-3, 4, (2,), generator=g, device=device).tolist()
    x = F.pad(x, (3, 3, 3, 3), mode="replicate")[:, :, 3 + dy : 3 + dy + PIXELS, 3 + dx : 3 + dx + PIXELS]
    grey = x.mean(1, keepdim=True)
    x = grey * uniform(0.95, 1.15) + uniform(0.85, 1.5) * (x - grey)
    x = (x * uniform(0.93, 1.07, 3) + uniform(-0.06, 0.06)).clamp(-1, 1)
    soft = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    x = x + uniform(0, 1) * (uniform(0, 1) < 0.4) * (soft - x)
    return x + uniform(0, 0.05) * torch.randn(x.shape, generator=g, device=device)


@torch.inference_mode()
def accuracy(network: EmojiNetwork, x: torch.Tensor, labels: torch.Tensor, names: list[str]) -> dict[str, float]:
    """The share of pictures whose style is recognised, of all and of each style."""
    network.eval()
    hits = (network(x).argmax(1) == labels).float()
    network.train()
    each = {name: round(hits[labels == k].mean().item(), 3) for k, name in enumerate(names)}
    return {"all": round(hits.mean().item(), 4), **each}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--views", type=int, default=8, help="pictures of each icon through the autoencoder")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", type=Path, default=WORK / "style_judge.safetensors")
    parser.add_argument("--out", type=Path, default=DEMO / "weights" / "style_judge.safetensors")
    args = begin(parser, batch=256, lr=3e-3)
    device = torch.device(args.device)
    clock = time.time()

    w = world()
    names = [style["phrase"] for style in w["styles"].values()]
    place = {style["set"]: k for k, style in enumerate(w["styles"].values())}
    art = load_artwork(list(place))
    rgba, concept = art["rgba"].to(device), art["concept"].to(device)
    labels = torch.tensor([place[s] for s in art["set"]], device=device)
    unseen = torch.isin(concept, torch.tensor(test_concepts(w), device=device))
    train = (~unseen).nonzero()[:, 0]
    part = (concept[train] >= 0).long() + torch.isin(concept[train], torch.tensor(scene_concepts(w), device=device))
    share = torch.tensor(SHARES, device=device)[part]
    for k in range(len(names)):  # each style as often as the others, whatever its number of icons
        for p in range(len(SHARES)):
            rows = (labels[train] == k) & (part == p)
            share[rows] /= rows.sum()
    vae = load_autoencoder(device)
    g = torch.Generator(device).manual_seed(args.seed)
    bank = make_bank(vae, rgba[train], args.views, g)
    sharp = augment(rgba[unseen], g, strength=0, white=1, flip=False)
    tests = {"artwork": sharp, "through the autoencoder": soften(vae, sharp, g, strength=0)}
    print(f"{len(train)} icons, {len(sharp)} held out, ready in {time.time() - clock:.0f} s", flush=True)

    network = EmojiNetwork(len(names), STYLE_WIDTHS).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=5e-2)
    step, meta = 0, {}
    if args.checkpoint.exists():
        saved, meta = load_checkpoint(args.checkpoint)
        network.load_state_dict(split(saved, "network"))
        restore_optimizer(optimizer, split(saved, "optimizer"))
        step = meta["step"]
    clock, mean_loss = time.time(), torch.zeros((), device=device)
    while step < args.steps:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        g.manual_seed(args.seed * 10**7 + step)
        pick = torch.multinomial(share, args.batch, replacement=True, generator=g)
        half = args.batch // 2
        view = torch.randint(args.views, (args.batch - half,), generator=g, device=device)
        x = torch.cat([augment(rgba[train[pick[:half]]], g, strength=0.7), from_bytes(bank[view, pick[half:]])])
        x = tint(x, g).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(x)
        loss = F.cross_entropy(logits.float(), labels[train[pick]], label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        mean_loss += loss.detach() / 100
        if step % 100 == 0:
            print(f"step {step} loss {mean_loss.item():.3f} {(time.time() - clock) * 10:.0f} ms/step", flush=True)
            clock, mean_loss = time.time(), torch.zeros((), device=device)
        if step % 500 == 0 or step == args.steps:
            held_out = {name: accuracy(network, x, labels[unseen], names) for name, x in tests.items()}
            meta = {"step": step, "icons": len(train), "held_out_icons": len(sharp), "held_out": held_out}
            print(meta, flush=True)
            tensors = join(network=network.state_dict(), optimizer=optimizer_tensors(optimizer))
            save_checkpoint(args.checkpoint, tensors, meta)
    final = {k: v if v.dtype == torch.int64 else v.half() for k, v in network.state_dict().items()}
    save_checkpoint(args.out, {k: v.cpu() for k, v in final.items()}, meta)
    print(f"{args.out} {args.out.stat().st_size / 2**20:.2f} MiB", flush=True)


if __name__ == "__main__":
    main()
