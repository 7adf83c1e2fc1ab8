"""Attacks that train on images of the concept: concept inversion and relearning.

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) n     target: n, or v = sqrt(abar_t) n - sqrt(1 - abar_t) x_0
    x_t = (1 - sigma) x_0 + sigma n                 target: n - x_0, for rectified flows

An attacker needs the weights and a few images; here the base model generates them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from PIL.Image import Image

from crce.attacks.prompts import AttackedPrompt, read_vocabulary
from crce.attacks.protocol import Allowance, Attack, stream, summarise_losses
from crce.attacks.victim import Try, Victim
from crce.backbones import Backbone, Conditioning
from crce.backbones.noise import DDIMGrid
from crce.backbones.scopes import scope_modules
from crce.errors import RunError
from crce.judges.judge import judge_images
from crce.training.adapters import Weights


IMAGE_SEED = 30_000  # far from the seeds of searches and tests
CANDIDATES = 4  # images that are generated for one that shows the concept
LEVELS = 100  # of a rectified flow
CHECKS = 5  # times that a learned word is tried
BACK = 0.5  # share of images that show the concept from which it counts as back


class ForwardProcess:
    """The forward process of a model, with noise levels from 0 (image) to 1 (noise)."""

    def __init__(self, backbone: Backbone) -> None:
        from diffusers import DDIMScheduler

        self._grid = backbone.grid(LEVELS)
        config = backbone.pipe.scheduler.config
        self._ddim = DDIMScheduler.from_config(config) if isinstance(self._grid, DDIMGrid) else None
        self._velocity = config.get("prediction_type") == "v_prediction"

    def at(
        self, x_0: torch.Tensor, noise: torch.Tensor, levels: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Finished latents x_0 with noise, both of shape (B, C, h, w), at one level in [0, 1) for each.

        Returns:
            x_t, shape (B, C, h, w); the timesteps, shape (B,); and the target of the prediction, shape (B, C, h, w).
        """
        if self._ddim is not None:
            steps = self._ddim.config["num_train_timesteps"]
            t = torch.tensor([int(level * steps) for level in levels], device=x_0.device)
            target = self._ddim.get_velocity(x_0, noise, t) if self._velocity else noise
            return self._ddim.add_noise(x_0, noise, t), t, target
        places = [min(LEVELS - 1, int((1 - level) * LEVELS)) for level in levels]
        rows = zip(x_0.split(1), noise.split(1), places, strict=True)
        x_t = torch.cat([self._grid.noised(x, n, place) for x, n, place in rows])
        return x_t, torch.tensor([self._grid.timesteps[p] for p in places], device=x_0.device), noise - x_0


def fit(
    victim: Victim,
    allowance: Allowance,
    x_0: torch.Tensor,
    batch: int,
    generator: torch.Generator,
    parameters: Sequence[torch.Tensor],
    rate: float,
    condition: Callable[[], Conditioning],
) -> Iterator[float]:
    """Train on random rows of x_0 at random noise levels with AdamW, one optimizer step for each step of the budget.

    x_0 are finished latents, shape (N, C, h, w), `batch` the rows of a step, and `condition` returns their
    conditioning. Yields the loss of each step.
    """
    process = ForwardProcess(victim.backbone)
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    while allowance.take():
        picked = torch.randint(len(x_0), (batch,), generator=generator)
        x, noise = x_0[picked.to(x_0.device)], torch.randn(batch, *x_0.shape[1:], generator=generator)
        levels = (torch.rand(batch, generator=generator) * 0.999).tolist()
        x_t, t, target = process.at(x, noise.to(x), levels)
        loss = (victim.predict(x_t, t, condition()) - target).square().mean()
        # Not backward(): the parameters of the erasure require gradients too, which are not needed.
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        yield loss.item()


@torch.no_grad()
def latents_of(backbone: Backbone, images: Sequence[Image]) -> torch.Tensor:
    """x_0 of images, shape (B, C, h, w): the mean of the autoencoder's posterior, scaled as the denoiser expects.

    That is the inverse of `Backbone.vae_latents`, which is affine.
    """
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import retrieve_latents

    vae = backbone.pipe.vae
    pixels = backbone.pipe.image_processor.preprocess(list(images)).to(backbone.device, vae.dtype)
    video = backbone.vae_latents(torch.zeros(1, backbone.latent_shape[0], 2, 2)).ndim == 5
    parts = (pixels.unsqueeze(2) if video else pixels).split(1)
    encoded = torch.cat([retrieve_latents(vae.encode(part), sample_mode="argmax") for part in parts]).float()
    x_0 = encoded.squeeze(2) if video else encoded
    at_0, at_1 = (backbone.vae_latents(torch.full_like(x_0, value)) for value in (0.0, 1.0))
    return ((encoded - at_0) / (at_1 - at_0)).reshape(x_0.shape)


def concept_latents(victim: Victim, prompt: AttackedPrompt, count: int) -> torch.Tensor:
    """x_0 of images that the base model generates for a prompt and the judge recognises, shape (count, C, h, w)."""
    kept: list[Image] = []
    with victim.original():
        for start in range(IMAGE_SEED, IMAGE_SEED + CANDIDATES * count, count):
            images = victim.generate([prompt.text] * count, list(range(start, start + count)))
            judged = judge_images(victim.judge, images, prompt.expected, victim.judge.threshold)
            kept += [i for i, j in zip(images, judged, strict=True) if i is not None and j.word == prompt.expected]
            if len(kept) >= count:
                break
    if not kept:
        raise RunError(
            f"The judge sees {prompt.expected!r} in none of {CANDIDATES * count} images that the base model generated "
            f"for {prompt.text!r}, so there is nothing to learn from. Use another prompt."
        )
    latents = latents_of(victim.backbone, kept[:count])
    return latents[torch.arange(count) % len(latents)]


@dataclass
class ConceptInversion(Attack):
    """A word embedding that means the concept to the erased model (Pham et al., arXiv:2308.01508).

        min over s  E_{x_0, t, n} | eps - eps_erased(x_t, t, [s]) |^2

    This is textual inversion (arXiv:2208.01618) on the erased model. It shows what the weights can still generate,
    whichever words lead there. The prompt is the learned word alone, and its file loads into diffusers with
    `pipe.load_textual_inversion`.
    """

    name = "inversion"
    default_steps = 400
    seeks = "words"

    words: int = 1  # embeddings to learn
    rate: float = 5e-3  # learning rate of AdamW
    pictures: int = 8  # images to learn from
    batch: int = 4  # images in a step, each with its own noise

    def search(self, victim: Victim, prompt: AttackedPrompt, allowance: Allowance) -> dict[str, Any]:
        backbone = victim.backbone
        generator = stream(victim.seed, self.name, prompt.text)
        vocabulary = read_vocabulary(backbone.pipe.tokenizer)
        x_0 = concept_latents(victim, prompt, self.pictures)
        start = vocabulary.ids[torch.randint(len(vocabulary), (self.words,), generator=generator)]
        table = backbone.pipe.text_encoder.get_input_embeddings().weight.detach()
        word = table[start.to(table.device)].float().clone().requires_grad_(True)  # (K, W)
        losses: list[float] = []
        every = max(1, allowance.budget.steps // CHECKS)

        def condition() -> Conditioning:
            return victim.encode([""] * self.batch, word.expand(self.batch, -1, -1))

        for loss in fit(victim, allowance, x_0, self.batch, generator, [word], self.rate, condition):
            losses.append(loss)
            if (allowance.steps % every == 0 or allowance.done) and victim.attempt([""], word)[0].complete:
                break
        return {"loss": summarise_losses(losses)}


@dataclass
class Relearning(Attack):
    """Fine-tuning on images of the concept under its own prompt, and the steps until it is back.

        min over weights  E_{x_0, t, n} | eps - eps_erased(x_t, t, prompt) |^2

    Anyone with the weights can do this, and no erasure withstands it forever: a model learns new concepts the same
    way. The result is the number of optimizer steps it takes, which is meaningful only in comparison with another
    erasure. The layers that bring the text into the image are trained, in float32.
    """

    name = "relearning"
    default_steps = 60
    seeks = "weights"
    searches_again = True

    layers: str = "xattn"  # see `crce.backbones.scopes`
    rate: float = 1e-4  # learning rate of AdamW
    pictures: int = 4  # images to learn from
    batch: int = 4  # images in a step
    every: int = 5  # steps between two tries

    def pick(self, victim: Victim, tries: tuple[Try, ...]) -> Try:
        """The weights of the last step, whose test images have been generated."""
        return tries[-1]

    def search(self, victim: Victim, prompt: AttackedPrompt, allowance: Allowance) -> dict[str, Any]:
        generator = stream(victim.seed, self.name, prompt.text)
        x_0 = concept_latents(victim, prompt, self.pictures)
        cond = victim.encode([prompt.text]).expand(self.batch)
        losses, curve = [], [{"step": 0, "share": _share(victim)}]
        # weights of their own, including or on top of those of an erasure
        with closing(Weights(victim.backbone, scope_modules(victim.backbone, self.layers))) as weights:
            parameters = weights.parameters()
            for loss in fit(victim, allowance, x_0, self.batch, generator, parameters, self.rate, lambda: cond):
                losses.append(loss)
                if allowance.steps % self.every and not allowance.done:
                    continue
                victim.attempt([prompt.text], state=f"step-{allowance.steps}")
                curve.append({"step": allowance.steps, "share": _share(victim)})
                if victim.tries[-1].complete:
                    break
            # The test images need these weights, which are gone after the search.
            victim.query([prompt.text], victim.test_seeds, prompt.expected, state=victim.tries[-1].state)
        return {"back_after": back_after(curve), "curve": curve, "loss": summarise_losses(losses)}


def back_after(curve: Sequence[dict[str, Any]]) -> int | None:
    """The first trained step from which the concept stays back: a single try with few images can err."""
    back = [point["step"] for point in takewhile(lambda p: p["share"] >= BACK and p["step"], reversed(curve))]
    return back[-1] if back else None


def _share(victim: Victim) -> float:
    return victim.tries[-1].hits / len(victim.tries[-1].images)
