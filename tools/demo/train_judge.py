"""Train the judge on the training sets, test it on sets it never saw: `python tools/demo/train_judge.py`.

It never sees a generated picture. To recognise a thing in a hand it never saw, and in the soft pictures of a small
model, it trains on artwork turned, stretched, recoloured, blurred, outlined, covered in part and filtered at random.
Strong recolouring alone makes it call a red car a taxi, so a second cycle recolours little.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from common import (
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
from torch.nn import functional as F

from crce.judges.emoji import EmojiNetwork


def warp(rgba: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Turn, stretch and mirror icons on a random background: pictures in [-1, 1], shape (B, 3, PIXELS, PIXELS)."""
    x = augment(rgba, g, strength=2.0)
    b = len(x)
    stretch = 1 + 0.4 * (torch.rand(b, 2, generator=g) - 0.5)
    skew = 0.3 * (torch.rand(b, 2, generator=g) - 0.5)
    zero = torch.zeros(b)
    rows = [torch.stack([stretch[:, 0], skew[:, 0], zero], 1), torch.stack([skew[:, 1], stretch[:, 1], zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), [b, 3, *x.shape[2:]], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def distort(x: torch.Tensor, g: torch.Generator, recolour: float) -> torch.Tensor:
    """Recolour, filter, outline, blur, cover and roughen pictures in [-1, 1], shape (B, 3, H, W)."""
    b, _, h, w = x.shape

    def chance(p: float) -> torch.Tensor:
        return (torch.rand(b, 1, 1, 1, generator=g) < p).float() * torch.rand(b, 1, 1, 1, generator=g)

    mixing = torch.eye(3) + 0.2 * recolour * torch.randn(b, 3, 3, generator=g)
    x = torch.einsum("bij,bjhw->bihw", mixing, x) + 0.15 * recolour * torch.randn(b, 3, 1, 1, generator=g)
    x = x + recolour * chance(0.3) * (x.mean(1, keepdim=True) - x)
    # A random 3x3 filter changes texture and leaves shape (Xu et al. 2021, RandConv).
    kernels = torch.randn(b * 3, 3, 3, 3, generator=g) / 27**0.5 * 1.5
    filtered = F.conv2d(x.reshape(1, b * 3, h, w), kernels, padding=1, groups=b).view(b, 3, h, w)
    x = x + recolour * chance(0.5) * (filtered - x)
    grey = F.avg_pool2d(F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate"), 3, 1)
    edges = (x.mean(1, keepdim=True) - grey).abs()
    x = x - 6 * chance(0.4) * F.max_pool2d(edges, 3, 1, 1)
    soft = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    x = x + chance(0.7) * (soft - x)
    rows, columns = torch.arange(h)[None, :, None], torch.arange(w)[None, None, :]
    corner, size = torch.randint(64, (b, 2), generator=g), torch.randint(8, 26, (b, 2), generator=g)
    inside = (rows >= corner[:, :1, None]) & (rows < (corner + size)[:, :1, None])
    inside = inside & (columns >= corner[:, 1:, None]) & (columns < (corner + size)[:, 1:, None])
    covered = inside[:, None] & (torch.rand(b, 1, 1, 1, generator=g) < 0.4)
    x = torch.where(covered, torch.rand(b, 3, 1, 1, generator=g) * 2 - 1, x)
    return (x + 0.08 * torch.randn(x.shape, generator=g) * chance(1.0)).clamp(-1.5, 1.5)


@torch.no_grad()
def accuracy(network: EmojiNetwork, rgba: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    g = torch.Generator().manual_seed(0)
    x = torch.cat([augment(rgba[i : i + 64], g, strength=0, white=1, flip=False) for i in range(0, len(rgba), 64)])
    hits = (network(x).argmax(1) == labels).float().mean().item()
    network.train()
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--more", type=int, default=2000, help="steps of a second cycle with little recolouring")
    args = begin(parser, batch=48, lr=2e-3)
    w = world()
    test_sets = w["judge_test_sets"]
    art = load_artwork()
    named = art["concept"] >= 0
    unseen = torch.tensor([s in test_sets for s in art["set"]])
    train = (named & ~unseen).nonzero()[:, 0]
    by_concept = [train[art["concept"][train] == i] for i in range(len(w["concepts"]))]
    network = EmojiNetwork(len(w["concepts"])).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=5e-2)
    path = WORK / "judge.safetensors"
    step = 0
    if path.exists():
        saved, meta = load_checkpoint(path)
        network.load_state_dict(split(saved, "network"))
        restore_optimizer(optimizer, split(saved, "optimizer"))
        step = meta["step"]
    clock, mean_loss = time.time(), 0.0
    while step < args.steps + args.more:
        for group in optimizer.param_groups:
            if step < args.steps:
                group["lr"] = args.lr * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
            else:
                group["lr"] = args.lr / 4 * 0.5 * (1 + math.cos(math.pi * (step - args.steps) / args.more))
        g = torch.Generator().manual_seed(args.seed * 10**7 + step)
        concepts = torch.randint(len(by_concept), (args.batch,), generator=g).tolist()
        index = torch.stack([by_concept[c][torch.randint(len(by_concept[c]), (), generator=g)] for c in concepts])
        x = distort(warp(art["rgba"][index], g), g, recolour=1.0 if step < args.steps else 0.2)
        logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, art["concept"][index], label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        mean_loss += loss.item() / 100
        if step % 100 == 0:
            print(f"step {step} loss {mean_loss:.3f} {(time.time() - clock) * 10:.0f} ms/step", flush=True)
            clock, mean_loss = time.time(), 0.0
        if step % 500 == 0 or step == args.steps + args.more:
            meta = {"step": step, "training_pictures": len(train)}
            for name in test_sets:
                rows = torch.tensor([s == name and c >= 0 for s, c in zip(art["set"], art["concept"], strict=True)])
                hits = accuracy(network, art["rgba"][rows], art["concept"][rows])
                meta[name] = {"accuracy": round(hits, 4), "pictures": int(rows.sum())}
            print(meta, flush=True)
            tensors = join(network=network.state_dict(), optimizer=optimizer_tensors(optimizer))
            save_checkpoint(path, tensors, meta)


if __name__ == "__main__":
    main()
