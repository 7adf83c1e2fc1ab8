"""Train the bundled model's denoiser: `python tools/demo/train_unet.py`. Resumes from its last checkpoint.

Velocity prediction (Salimans and Ho 2022), unweighted, on latents of augmented artwork encoded once by the frozen
encoder, and captions embedded once by the frozen text encoder. Which picture is drawn is decided at high noise, where
min-SNR weights are nearly zero: with them 2,000 steps gave blobs of the right colour and no shape.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from captions import Picker, all_captions, by_concept, embed, examples
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
from diffusers import DDIMScheduler, UNet2DConditionModel
from train_autoencoder import build as build_autoencoder


VARIANTS = 6
GUIDANCE = 4.0


def build() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(96, 192),
        layers_per_block=1,
        cross_attention_dim=384,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


@torch.no_grad()
def latents(vae, rgba: torch.Tensor, seed: int) -> torch.Tensor:
    """VARIANTS augmented latents per icon, shape (N, VARIANTS, C, h, w), float16; made once and kept on disk."""
    path = WORK / "latents.safetensors"
    if path.exists():
        return load_checkpoint(path)[0]["z"]
    g = torch.Generator().manual_seed(seed)
    out = []
    for i in range(0, len(rgba), 64):
        part = rgba[i : i + 64]
        out.append(
            torch.stack(
                [vae.encoder(augment(part, g, strength=0.35, white=0.75, flip=False)).half() for _ in range(VARIANTS)],
                1,
            )
        )
    z = torch.cat(out)
    save_checkpoint(path, {"z": z}, {})
    return z


def caption_table(w: dict) -> tuple[torch.Tensor, dict]:
    texts, index = all_captions(w)
    path = WORK / "captions.safetensors"
    if path.exists():
        saved, meta = load_checkpoint(path)
        if meta["texts"] == texts:
            return saved["embeddings"], index
    embeddings = embed(texts)
    save_checkpoint(path, {"embeddings": embeddings}, {"texts": texts})
    return embeddings, index


@torch.no_grad()
def sample(unet, embeddings: torch.Tensor, null: torch.Tensor, seed: int, steps: int = 20) -> torch.Tensor:
    """Draw one latent per prompt embedding with classifier-free guidance."""
    s = scheduler()
    s.set_timesteps(steps)
    x = torch.randn(len(embeddings), 8, 8, 8, generator=torch.Generator().manual_seed(seed))
    cond = torch.cat([null.expand_as(embeddings), embeddings])
    for t in s.timesteps:
        u, c = unet(torch.cat([x, x]), t, cond).sample.chunk(2)
        x = s.step(u + GUIDANCE * (c - u), t, x).prev_sample
    return x


def learning_rate(step: int, peak: float, *cycles: int) -> float:
    """Cosine cycles, each after the first from a third of the peak; the first one warms up."""
    warmth, start = min(1.0, (step + 1) / 300), 0
    for i, length in enumerate(cycles):
        if step < start + length:
            cosine = 0.5 * (1 + math.cos(math.pi * (step - start) / length))
            return (peak if i == 0 else peak / 3) * warmth * (0.02 + 0.98 * cosine)
        start += length
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=9500)
    parser.add_argument("--more", type=int, default=2000, help="steps of a second, lower cycle of the learning rate")
    parser.add_argument("--polish", type=int, default=1000, help="steps of a third cycle that favours hard concepts")
    args = begin(parser, batch=16, lr=7e-4)
    w = world()
    art = load_artwork([s["set"] for s in w["styles"].values()])
    inside = (art["concept"] >= 0).nonzero()[:, 0]
    vae = build_autoencoder().eval()
    vae.load_state_dict(split(load_checkpoint(WORK / "encoder.safetensors")[0], "vae"))
    z = latents(vae, art["rgba"][inside], args.seed)
    embeddings, index = caption_table(w)
    pictures = by_concept(art, inside)
    unet = build().to(memory_format=torch.channels_last).train()
    ema = {k: v.detach().clone() for k, v in unet.state_dict().items()}
    optimizer = torch.optim.AdamW(unet.parameters(), lr=args.lr, betas=(0.9, 0.999), weight_decay=1e-2)
    path = WORK / "unet.safetensors"
    step = 0
    if path.exists():
        saved, meta = load_checkpoint(path)
        unet.load_state_dict(split(saved, "unet"))
        ema = split(saved, "ema")
        restore_optimizer(optimizer, split(saved, "optimizer"))
        step = meta["step"]
    alpha_bar = scheduler().alphas_cumprod
    clock, mean_loss = time.time(), 0.0
    names = [i for i in range(len(w["concepts"])) if i in pictures]
    hard = [i for i in names if w["concepts"][i]["name"] in w["hard"]]
    total = args.steps + args.more + args.polish
    while step < total:
        lr = learning_rate(step, args.lr, args.steps, args.more, args.polish)
        for group in optimizer.param_groups:
            group["lr"] = lr
        g = torch.Generator().manual_seed(args.seed * 10**7 + step)

        def concept(pick: Picker, polish: bool = step >= args.steps + args.more) -> int:
            favour = polish and pick(5) < 2
            return hard[pick(len(hard))] if favour else names[pick(len(names))]

        rows, captions = examples(pictures, index, args.batch, concept, g)
        variant = torch.randint(z.shape[1], (args.batch,), generator=g)
        x0 = z[rows, variant].float()
        # One stratified timestep per picture: less noise in the gradient than independent draws.
        u = (torch.arange(args.batch) + torch.rand(args.batch, generator=g)) / args.batch
        t = (u * 1000).long()
        a = alpha_bar[t][:, None, None, None]
        eps = torch.randn(x0.shape, generator=g)
        x_t = (a.sqrt() * x0 + (1 - a).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        v = a.sqrt() * eps - (1 - a).sqrt() * x0
        out = unet(x_t, t, embeddings[captions].float()).sample
        loss = (out - v).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.9995, (1 + step) / (10 + step))
        with torch.no_grad():
            state = unet.state_dict()
            torch._foreach_lerp_([ema[k] for k in state], list(state.values()), 1 - decay)
        mean_loss += loss.item() / 100
        if step % 100 == 0:
            print(f"step {step} loss {mean_loss:.4f} lr {lr:.1e} {(time.time() - clock) * 10:.0f} ms/step", flush=True)
            clock, mean_loss = time.time(), 0.0
        if step % 500 == 0 or step == total:
            tensors = join(unet=unet.state_dict(), ema=ema, optimizer=optimizer_tensors(optimizer))
            save_checkpoint(path, tensors, {"step": step})
        if step % 1000 == 0 or step == total:
            drawer = build().eval()
            drawer.load_state_dict(ema)
            prompts = torch.stack([embeddings[index[i, None][0]] for i in names]).float()
            decoder = WORK / "autoencoder.safetensors"
            vae.load_state_dict(split(load_checkpoint(decoder)[0], "vae"))
            with torch.no_grad():
                drawn = vae.decoder(sample(drawer, prompts, embeddings[:1].float(), seed=1))
            sheet(drawn, 14, WORK / "unet.png")
            clock = time.time()


if __name__ == "__main__":
    main()
