"""Train the bundled flow transformer: `python tools/demo/train_flow.py`. Resumes from its last checkpoint.

A `FluxTransformer2DModel` with double-stream and single-stream blocks, on the latents, captions and artwork of the
other bundled model. Two phases: a rectified flow (Liu et al. 2022) at a constant learning rate, then, as FLUX.1 dev
is distilled with guidance, a falling rate with the guidance scale as an input: the target is the velocity plus what
classifier-free guidance by the averaged weights would add (as in Tang et al. 2025, "Diffusion models without
classifier-free guidance"), so that one forward pass samples with guidance.
"""

from __future__ import annotations

import argparse
import time

import torch
from captions import TOKENS, all_captions, by_concept, examples
from common import (
    DEMO,
    WORK,
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
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file
from train_unet import latents
from transformers import AutoTokenizer, BertModel


CHANNELS, SIDE = 8, 8
PATH = WORK / "flow.safetensors"
MEAN, DEVIATION = 0.4, 1.0  # of the logit of the noise level: which picture is drawn is decided at high noise
UNGUIDED = 1.0
GUIDANCE = (1.0, 6.0)  # scales that the second phase learns
SHIFT = 1.5


def build() -> FluxTransformer2DModel:
    """The transformer: 11.3 M parameters, two double-stream and six single-stream blocks."""
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * CHANNELS,
        num_layers=2,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=8,
        joint_attention_dim=384,
        pooled_projection_dim=384,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    for name, parameter in model.named_parameters():
        # as in DiT: every block begins as the identity, and the prediction as zero
        if "norm" in name and ".linear." in name or name.startswith("proj_out"):
            torch.nn.init.zeros_(parameter)
        elif name.endswith("weight") and parameter.ndim == 2:
            torch.nn.init.xavier_uniform_(parameter)
    return model


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


@torch.no_grad()
def embed(texts: list[str], batch: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (N, TOKENS, 384) and pooled states (N, 384) as FluxPipeline computes them: padded, unmasked."""
    folder = DEMO / "weights" / "text_encoder"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    hidden, pooled = [], []
    for i in range(0, len(texts), batch):
        tokens = tokenizer(
            texts[i : i + batch], padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        out = encoder(input_ids=tokens["input_ids"])
        hidden.append(out.last_hidden_state.half())
        pooled.append(out.pooler_output.half())
    return torch.cat(hidden), torch.cat(pooled)


def caption_table(w: dict) -> tuple[torch.Tensor, torch.Tensor, dict]:
    texts, index = all_captions(w)
    path = WORK / "flow_captions.safetensors"
    if path.exists():
        saved, meta = load_checkpoint(path)
        if meta["texts"] == texts:
            return saved["hidden"], saved["pooled"], index
    hidden, pooled = embed(texts)
    save_checkpoint(path, {"hidden": hidden, "pooled": pooled}, {"texts": texts})
    return hidden, pooled, index


def autoencoder() -> AutoencoderTiny:
    vae = AutoencoderTiny.from_config(AutoencoderTiny.load_config(DEMO / "weights" / "vae.json"))
    vae.load_state_dict({k: v.float() for k, v in load_file(DEMO / "weights" / "vae.safetensors").items()})
    return vae.eval()


def velocity(
    model: FluxTransformer2DModel,
    x_t: torch.Tensor,
    sigma: torch.Tensor,
    hidden: torch.Tensor,
    pooled: torch.Tensor,
    guidance: torch.Tensor,
) -> torch.Tensor:
    """The prediction for packed latents x_t (B, 16, 32) at noise levels sigma (B,) in (0, 1)."""
    return model(
        hidden_states=x_t,
        timestep=sigma,
        guidance=guidance,
        pooled_projections=pooled,
        encoder_hidden_states=hidden,
        txt_ids=torch.zeros(hidden.shape[1], 3),
        img_ids=FluxPipeline._prepare_latent_image_ids(1, SIDE // 2, SIDE // 2, x_t.device, x_t.dtype),
    ).sample


def pack(z: torch.Tensor) -> torch.Tensor:
    return FluxPipeline._pack_latents(z, len(z), CHANNELS, SIDE, SIDE)


@torch.no_grad()
def sample(model, hidden: torch.Tensor, pooled: torch.Tensor, seed: int, guided: bool, steps: int = 20):
    """Draw one latent a prompt, by the guidance input of the model or, before it has learned it, by two passes."""
    s = scheduler()
    s.set_timesteps(steps)
    x = pack(torch.randn(len(hidden), CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)))
    scale = torch.full((len(x),), 3.5)
    for t in s.timesteps:
        sigma = (t / 1000).expand(len(x))
        if guided:
            v = velocity(model, x, sigma, hidden, pooled, scale)
        else:
            c = velocity(model, x, sigma, hidden, pooled, torch.ones(len(x)))
            u = velocity(model, x, sigma, EMPTY[0].expand_as(hidden), EMPTY[1].expand_as(pooled), torch.ones(len(x)))
            v = u + scale[:, None, None] * (c - u)
        x = s.step(v, t, x).prev_sample
    return FluxPipeline._unpack_latents(x, SIDE * 8, SIDE * 8, 8)


EMPTY: tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    global EMPTY
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=7_000, help="of the first phase")
    parser.add_argument("--guided", type=int, default=2_400, help="steps of the second phase")
    args = begin(parser, batch=32, lr=7e-4)
    w = world()
    art = load_artwork([s["set"] for s in w["styles"].values()])
    inside = (art["concept"] >= 0).nonzero()[:, 0]
    vae = autoencoder()
    z = latents(vae, art["rgba"][inside], args.seed)
    hidden, pooled, index = caption_table(w)
    EMPTY = hidden[0].float(), pooled[0].float()
    pictures = by_concept(art, inside)
    names = sorted(pictures)
    model = build().train()
    average = build().eval().requires_grad_(False)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-2)
    step, total = 0, args.steps + args.guided
    if PATH.exists():
        saved, meta = load_checkpoint(PATH)
        model.load_state_dict(split(saved, "model"))
        average.load_state_dict(split(saved, "average"))
        restore_optimizer(optimizer, split(saved, "optimizer"))
        step = meta["step"]
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, from step {step} of {total}", flush=True
    )
    clock, mean_loss = time.time(), 0.0
    while step < total:
        guiding = step >= args.steps
        rate = args.lr * min(1.0, (step + 1) / 500)
        if guiding:
            rate = args.lr * (total - step) / args.guided
        for group in optimizer.param_groups:
            group["lr"] = rate
        g = torch.Generator().manual_seed(args.seed * 10**7 + step)
        rows, chosen = examples(pictures, index, args.batch, lambda pick: names[pick(len(names))], g)
        text, summary = hidden[chosen].float(), pooled[chosen].float()
        variant = torch.randint(z.shape[1], (args.batch,), generator=g)
        x0 = pack(z[rows, variant].float())
        # one stratified noise level per picture: less noise in the gradient than independent draws
        u = (torch.arange(args.batch) + torch.rand(args.batch, generator=g)) / args.batch
        sigma = torch.sigmoid(MEAN + DEVIATION * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4)))
        eps = torch.randn(x0.shape, generator=g)
        x_t = torch.lerp(x0, eps, sigma[:, None, None])
        target, scale = eps - x0, torch.full((args.batch,), UNGUIDED)
        if guiding:
            drawn = GUIDANCE[0] + (GUIDANCE[1] - GUIDANCE[0]) * torch.rand(args.batch, generator=g)
            # a fifth stays unguided, which is what guidance is made of; so does what has no caption
            scale = torch.where((torch.rand(args.batch, generator=g) < 0.2) | (chosen == 0), scale, drawn)
            with torch.no_grad():
                both = velocity(
                    average,
                    torch.cat([x_t, x_t]),
                    torch.cat([sigma, sigma]),
                    torch.cat([text, EMPTY[0].expand_as(text)]),
                    torch.cat([summary, EMPTY[1].expand_as(summary)]),
                    torch.full((2 * args.batch,), UNGUIDED),
                )
                conditional, unconditional = both.chunk(2)
            target = target + (scale - 1)[:, None, None] * (conditional - unconditional)
        loss = (velocity(model, x_t, sigma, text, summary, scale) - target).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            decay = min(0.9995, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        mean_loss += loss.item() / 100
        if step % 100 == 0:
            print(f"step {step} loss {mean_loss:.4f} {(time.time() - clock) * 10:.0f} ms/step", flush=True)
            clock, mean_loss = time.time(), 0.0
        if step % 250 == 0 or step == total:
            tensors = join(
                model=model.state_dict(), average=average.state_dict(), optimizer=optimizer_tensors(optimizer)
            )
            save_checkpoint(PATH, tensors, {"step": step})
        if step % 1000 == 0 or step == total:
            rows = [index[i, None][0] for i in names]
            with torch.no_grad():
                drawn = vae.decoder(
                    sample(average, hidden[rows].float(), pooled[rows].float(), seed=1, guided=guiding)
                )
            sheet(drawn, 14, WORK / "flow.png")
            clock = time.time()


if __name__ == "__main__":
    main()
