"""Train the bundled model's autoencoder: `python tools/demo/train_autoencoder.py`. Resumes from its last checkpoint.

Two phases. `joint` trains encoder and decoder; at its end the latents' mean and deviation are folded into the
encoder, so that latents have mean 0 and deviation 1 (StableDiffusionPipeline scales latents but does not shift them).
`decoder` then sharpens the decoder alone, while the denoiser can already train on the frozen encoder.
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
    sheet,
    split,
    world,
)
from diffusers import AutoencoderTiny


CHANNELS = 8
NOISE = 0.1


def build() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        num_encoder_blocks=(1, 1, 3, 3),
        num_decoder_blocks=(4, 3, 2, 1),
        latent_channels=CHANNELS,
        scaling_factor=1.0,
    )


def picture_loss(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """L1 + L2 + edges + chroma. Colour is learned last, so the part that is not grey counts again."""
    d = y - x
    chroma = d - d.mean(1, keepdim=True)
    edges = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    return d.abs().mean() + 2 * d.square().mean() + edges + 2.5 * chroma.abs().mean()


@torch.no_grad()
def fold_statistics(vae: AutoencoderTiny, rgba: torch.Tensor, generator: torch.Generator) -> None:
    """Give the latents mean 0 and deviation 1: exact in the encoder, to first order in the decoder."""
    z = torch.cat([vae.encoder(augment(rgba[i : i + 32], generator)) for i in range(0, len(rgba), 32)])
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    print("latent mean", mean.tolist(), "std", std.tolist(), flush=True)
    last, first = vae.encoder.layers[-1], vae.decoder.layers[0]
    last.bias.copy_((last.bias - mean) / std)
    last.weight.div_(std[:, None, None, None])
    first.bias.add_((first.weight * mean[None, :, None, None]).sum((1, 2, 3)))
    first.weight.mul_(std[None, :, None, None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--joint", type=int, default=9000, help="steps of encoder and decoder together")
    parser.add_argument("--decoder", type=int, default=6000, help="steps of the decoder alone")
    args = begin(parser, batch=4, lr=1.5e-3)
    art = load_artwork([s["set"] for s in world()["styles"].values()])
    inside = (art["concept"] >= 0).nonzero()[:, 0]
    rgba = art["rgba"]
    vae = build().to(memory_format=torch.channels_last).train()
    path = WORK / "autoencoder.safetensors"
    step, meta = 0, {"step": 0}
    saved: dict[str, torch.Tensor] = {}
    if path.exists():
        saved, meta = load_checkpoint(path)
        vae.load_state_dict(split(saved, "vae"))
        step = meta["step"]
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    if split(saved, "optimizer"):
        restore_optimizer(optimizer, split(saved, "optimizer"))
    clock, mean_loss = time.time(), 0.0
    total = args.joint + args.decoder
    while step < total:
        if step == args.joint and not meta.get("folded"):
            fold_statistics(vae, rgba[inside], torch.Generator().manual_seed(args.seed))
            meta["folded"] = True
            save_checkpoint(WORK / "encoder.safetensors", join(vae=vae.state_dict()), meta)
            optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4)
        frozen = step >= args.joint
        vae.encoder.requires_grad_(not frozen)
        done, length = (step - args.joint, args.decoder) if frozen else (step, args.joint)
        lr = args.lr * min(1, (done + 1) / 200) * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * done / length)))
        for group in optimizer.param_groups:
            group["lr"] = lr
        g = torch.Generator().manual_seed(args.seed * 10**7 + step)
        # Four pictures in five are of the world; the rest keep the latent space general.
        pool = torch.randint(len(rgba), (args.batch,), generator=g)
        world_pick = inside[torch.randint(len(inside), (args.batch,), generator=g)]
        index = torch.where(torch.rand(args.batch, generator=g) < 0.8, world_pick, pool)
        x = augment(rgba[index], g).contiguous(memory_format=torch.channels_last)
        z = vae.encoder(x)
        y = vae.decoder(z + NOISE * torch.randn(z.shape, generator=g))
        loss = picture_loss(y, x)
        if not frozen:
            mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
            loss = loss + 0.02 * mean.square().mean() + 0.02 * std.log().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        mean_loss += (y.detach() - x).abs().mean().item() / 100
        if step % 100 == 0:
            print(f"step {step} L1 {mean_loss:.4f} lr {lr:.1e} {(time.time() - clock) * 10:.0f} ms/step", flush=True)
            clock, mean_loss = time.time(), 0.0
        if step % 500 == 0 or step == total:
            meta["step"] = step
            tensors = join(vae=vae.state_dict(), optimizer=optimizer_tensors(optimizer))
            save_checkpoint(path, tensors, meta)
            with torch.no_grad():
                show = inside[:: len(inside) // 48][:48]
                x = augment(rgba[show], torch.Generator().manual_seed(1), strength=0.5)
                y = vae.decoder(vae.encoder(x))
            sheet(torch.stack([x, y], 1).flatten(0, 1), 16, WORK / "autoencoder.png")


if __name__ == "__main__":
    main()
