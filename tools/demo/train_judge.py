"""Train the judge on the training sets, test it on sets it never saw: `python tools/demo/train_judge.py`.

It never sees a generated picture. Blur, noise and colour shifts in training keep it from leaning on crisp edges.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from common import (
    WORK,
    augment,
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

from crce.evaluate.judges import EmojiNetwork


def distort(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Shift colours, blur and add noise to pictures in [-1, 1], shape (B, 3, H, W)."""
    b = len(x)
    gain = 1 + 0.25 * (torch.rand(b, 3, 1, 1, generator=g) - 0.5)
    grey = torch.rand(b, 1, 1, 1, generator=g) * (torch.rand(b, 1, 1, 1, generator=g) < 0.3)
    x = ((x + 1) * gain - 1).clamp(-1, 1)
    x = x + grey * (x.mean(1, keepdim=True) - x)
    soft = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    mix = torch.rand(b, 1, 1, 1, generator=g)
    x = x + mix * (soft - x)
    return x + 0.06 * torch.randn(x.shape, generator=g) * torch.rand(b, 1, 1, 1, generator=g)


@torch.no_grad()
def accuracy(network: EmojiNetwork, rgba: torch.Tensor, labels: torch.Tensor, head: int) -> float:
    network.eval()
    g = torch.Generator().manual_seed(0)
    x = torch.cat([augment(rgba[i : i + 64], g, strength=0, white=1, flip=False) for i in range(0, len(rgba), 64)])
    hits = (network(x)[head].argmax(1) == labels).float().mean().item()
    network.train()
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    w = world()
    sets = [s["set"] for s in w["styles"].values()]
    art = load_artwork()
    style = torch.tensor([sets.index(s) if s in sets else -1 for s in art["set"]])
    train = ((art["concept"] >= 0) & (style >= 0)).nonzero()[:, 0]
    unseen_sets = ((art["concept"] >= 0) & (style < 0)).nonzero()[:, 0]
    unseen_icons = ((art["concept"] < 0) & (style >= 0)).nonzero()[:, 0]
    by_concept = [train[art["concept"][train] == i] for i in range(len(w["concepts"]))]
    network = EmojiNetwork(len(w["concepts"]), len(sets)).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=5e-2)
    path = WORK / "judge.safetensors"
    step = 0
    if path.exists():
        saved, meta = load_checkpoint(path)
        network.load_state_dict(split(saved, "network"))
        restore_optimizer(optimizer, split(saved, "optimizer"))
        step = meta["step"]
    clock, mean_loss = time.time(), 0.0
    while step < args.steps:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        g = torch.Generator().manual_seed(args.seed * 10**7 + step)
        concepts = torch.randint(len(by_concept), (args.batch,), generator=g).tolist()
        index = torch.stack([by_concept[c][torch.randint(len(by_concept[c]), (), generator=g)] for c in concepts])
        x = augment(art["rgba"][index], g, strength=1.6)
        logits, style_logits = network(distort(x, g).contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, art["concept"][index], label_smoothing=0.1)
        loss = loss + 0.3 * F.cross_entropy(style_logits, style[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        mean_loss += loss.item() / 100
        if step % 100 == 0:
            print(f"step {step} loss {mean_loss:.3f} {(time.time() - clock) * 10:.0f} ms/step", flush=True)
            clock, mean_loss = time.time(), 0.0
        if step % 500 == 0 or step == args.steps:
            meta = {
                "step": step,
                "accuracy_unseen_sets": accuracy(network, art["rgba"][unseen_sets], art["concept"][unseen_sets], 0),
                "pictures_unseen_sets": len(unseen_sets),
                "style_accuracy_unseen_icons": accuracy(network, art["rgba"][unseen_icons], style[unseen_icons], 1),
                "pictures_unseen_icons": len(unseen_icons),
            }
            print(meta, flush=True)
            tensors = join(network=network.state_dict(), optimizer=optimizer_tensors(optimizer))
            save_checkpoint(path, tensors, meta)


if __name__ == "__main__":
    main()
