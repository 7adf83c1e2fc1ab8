"""Measure what the diffusion model itself generates for a phrase, before anything is trained.

For a phrase p and the target c, on latents x_t that the model visits while it generates either of them,

    d_t(p) = mean over x_t of || eps(x_t, t, p) - eps(x_t, t, c) ||^2
    distance(p) = mean over t of d_t(p) / median over unrelated phrases u of d_t(u)
    closeness(p) = 1 - distance(p), cut to [0, 1]

so that 0 means "as far as an unrelated phrase" and 1 "the same predictions as for the target". The ratio is taken at
each noise level, so it is the same whether a model predicts eps or v, and every level counts equally. If a judge
knows the target, it also judges the images at the ends of the same trajectories.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crce.bounds import check_numbers
from crce.concepts.concept_set import fold
from crce.errors import SuggestError
from crce.suggest.candidates import Candidate


if TYPE_CHECKING:
    import torch

    from crce.backbones import Backbone, Conditioning
    from crce.judges import Judge

logger = logging.getLogger(__name__)

# Everyday things and animals in turn, far from each other: the median of their distances is that of an unrelated
# phrase even if the target is related to one or two of them.
UNRELATED = (
    *("umbrella", "fish", "guitar", "spider", "house", "butterfly", "pizza", "snowman"),
    *("train", "tree", "banana", "rainbow", "bicycle", "crown", "rocket", "mushroom"),
)
UNRELATED_USED = 6
STEPS = 12  # of the grid; the judge recognises images of 12 steps as well as those of 20
GUIDANCE = 4.0  # that of an evaluation

# Closeness at which every second image shows the target, and how fast that changes: a logistic curve fitted on the
# bundled model to the judged images of its atlas's phrases (see benchmarks/suggest/grounding.py).
HALF_SHOWN = 0.75
WIDTH = 0.07
CURVE_IMAGES = 2  # the curve counts as much as this many judged images
ENTANGLED = 0.5  # a retain is entangled with the target if more than this share of its images shows it
FLOOR = 0.1  # an unknown coref keeps this share of its certainty: the person who reviews may know better


@dataclass(frozen=True)
class Grounded:
    """What the model generates for a phrase."""

    distance: float  # of its predictions and the target's; 1 is the distance of an unrelated phrase
    closeness: float  # 1 - distance, in [0, 1]
    judged: float | None  # share of images in which the judge recognises the target; None if it does not know it
    images: int  # number of images judged
    samples: int  # latents x_t at which predictions were compared

    @property
    def shown(self) -> float:
        """The estimated share of its images that show the target, in [0, 1], from closeness and judge together."""
        curve = 1 / (1 + math.exp((HALF_SHOWN - self.closeness) / WIDTH))
        images = 0 if self.judged is None else self.images
        return (curve * CURVE_IMAGES + (self.judged or 0) * images) / (CURVE_IMAGES + images)


def apply_grounding(candidates: Sequence[Candidate], grounded: dict[str, Grounded]) -> list[Candidate]:
    """Apply the measurements of `ground` to candidates; what was not measured is not changed.

    A coref's certainty is multiplied by the share of its images that show the target, and a retain whose images show
    the target is dropped: training on it would keep the target. Corefs come first, each side by falling `priority`;
    dropped retains come last.
    """
    applied = [_grounded(candidate, grounded.get(candidate.text)) for candidate in candidates]
    return sorted(applied, key=lambda c: (c.side == "retain", c.outcome == "dropped", -priority(c)))


def priority(candidate: Candidate) -> float:
    """What to choose a candidate by, in [0, 1]: of equally certain retains the closest, most at risk, comes first."""
    if candidate.side == "coref" or candidate.closeness is None:
        return candidate.certainty
    return round(candidate.certainty * (1 + candidate.closeness) / 2, 4)


def _grounded(candidate: Candidate, measured: Grounded | None) -> Candidate:
    if measured is None:
        return candidate
    judged = "no images judged"
    if measured.judged is not None:
        judged = f"{round(measured.judged * measured.images)} of {measured.images} images show the target"
    note = f"(closeness {measured.closeness:.2f}, {judged})"
    shown, candidate = measured.shown, replace(candidate, closeness=measured.closeness)
    if candidate.side == "coref":
        often = "often" if shown >= 0.8 else "sometimes" if shown >= 0.3 else "hardly ever"
        certainty = round(candidate.certainty * max(shown, FLOOR), 2)
        return replace(candidate.noted(f"the model {often} generates the target for it {note}"), certainty=certainty)
    if shown > ENTANGLED:
        why = "entangled: the model generates the target for it, so keeping it would keep the target"
        return candidate.dropped(f"{why} {note}")
    at_risk = measured.closeness >= 0.4
    where = "is close to the target and most at risk" if at_risk else "is generated as something else"
    return candidate.noted(f"{where} {note}")


def ground(
    target: str,
    phrases: Sequence[str],
    backbone: Backbone,
    *,
    judge: Judge | None = None,
    seed: int = 0,
    latents: int = 4,
    timesteps: int = 6,
    images: int = 4,
    unrelated: Sequence[str] | None = None,
) -> dict[str, Grounded]:
    """Measure how much a model treats each phrase as the target.

    Every trajectory k starts from the same noise for all phrases, so that two phrases differ by their words alone.

    Args:
        target: the phrase to erase.
        phrases: candidates of either side.
        backbone: the model, with no adapter on.
        judge: judges images of each phrase if it knows the target.
        seed: of the starting noise.
        latents, timesteps: trajectories of each phrase that are compared, and noise levels, spread evenly.
        images: images of each phrase for the judge.
        unrelated: phrases that have nothing to do with the target; None takes everyday nouns.

    Returns:
        A measurement for every phrase, and one for the target itself (closeness 1, with its own images judged).

    Raises:
        ConfigError: a number is out of range.
        SuggestError: the model's predictions are not numbers or do not depend on the prompt.
    """
    import torch

    check_numbers(latents=latents, timesteps=timesteps, images=images, seed=seed)
    texts = list(dict.fromkeys([target, *phrases]))
    others = list(dict.fromkeys(_unrelated(texts, judge) if unrelated is None else unrelated))
    if not others:
        raise SuggestError("There is no unrelated phrase to compare with. Name some, e.g. unrelated=['umbrella'].")
    target_class = judge.class_of(target) if judge else None
    count = images if target_class else 0
    shares: list[float | None] = [None] * len(texts)
    with torch.inference_mode():
        distances, finals = _sample(backbone, [*texts, *others], seed, latents, timesteps, count)
        far = distances[len(texts) :].quantile(0.5, dim=0)
        if not distances.isfinite().all():
            raise SuggestError("The model predicts values that are not numbers. Load it with dtype float32.")
        if (far <= 0).any():
            raise SuggestError("The model predicts the same for every prompt, so it can't tell phrases apart.")
        ratio = (distances[: len(texts)] / far).mean(1).tolist()
        if judge and target_class:
            wanted = judge.classes.index(target_class)
            tops = [judge.probs(backbone.decode(final)).argmax(1) for final in finals[: len(texts), :count]]
            shares = [(top == wanted).float().mean().item() for top in tops]
    if shares[0] is not None and shares[0] < 0.5:
        # a target that the judge does not recognise in its own images can't be missing in another phrase's
        logger.warning(
            "The judge recognises '%s' in only %.0f%% of the images of '%s', so other phrases are not judged.",
            *(target_class, 100 * shares[0], target),
        )
        shares, count = [None] * len(texts), 0
    return {
        text: Grounded(round(far, 4), round(min(max(1 - far, 0.0), 1.0), 4), share, count, 2 * latents * timesteps)
        for text, far, share in zip(texts, ratio, shares, strict=True)
    }


def _sample(
    backbone: Backbone, texts: list[str], seed: int, latents: int, timesteps: int, images: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """d_t of P phrases, the first the target, over their own latents and its, shape (P, T), and the last latents.

    K = `latents` trajectories are compared, at T = `timesteps` noise levels; all stop at the last without `images`.
    The last latents have shape (P, max(latents, images), C, h, w).
    """
    import torch

    from crce.backbones import Conditioning
    from crce.backbones.backbone import latents_at_once

    shape = backbone.latent_shape
    batch = latents_at_once(*shape[1:])  # as in sampling
    grid = backbone.grid(max(STEPS, timesteps))
    levels = [len(grid.timesteps) * i // timesteps for i in range(timesteps)]
    prompts = Conditioning.cat([backbone.encode(texts[i : i + 32]) for i in range(0, len(texts), 32)])
    empty = backbone.encode([""])

    def predict(x_t: torch.Tensor, t: float, prompts: Conditioning, which: torch.Tensor) -> torch.Tensor:
        """Predictions for latents (R, C, h, w), each under prompt `which` (R,), batch by batch."""
        parts = zip(x_t.split(batch), which.split(batch), strict=True)
        return torch.cat([backbone.predict(x, t, prompts[rows]) for x, rows in parts])

    count = max(latents, images)
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)) * grid.noise_scale
    x_t = noise.to(backbone.device).repeat(len(texts), 1, 1, 1)  # (P * count, C, h, w)
    phrase = torch.arange(len(texts), device=x_t.device).repeat_interleave(count)
    compared = torch.arange(len(texts), device=x_t.device).repeat_interleave(latents)
    distances = []
    for position, t in enumerate(grid.timesteps):
        own = predict(x_t, t, prompts, phrase)
        if position in levels:
            x, here = (each.view(len(texts), count, *shape)[:, :latents] for each in (x_t, own))  # (P, K, C, h, w)
            on_target = predict(x[0].repeat(len(texts), 1, 1, 1), t, prompts, compared)
            target = predict(x.flatten(0, 1), t, prompts, torch.zeros_like(compared))
            there = (on_target.view_as(here) - here[:1]).square().flatten(1).mean(1)
            distances.append((there + (here - target.view_as(here)).square().flatten(1).mean(1)) / 2)
        if position == levels[-1] and not images:
            break
        null = predict(x_t, t, empty, torch.zeros_like(phrase))
        x_t = grid.step(null + GUIDANCE * (own - null), position, x_t)
    return torch.stack(distances, 1), x_t.view(len(texts), count, *shape)


def _unrelated(texts: list[str], judge: Judge | None) -> list[str]:
    """Everyday nouns that have neither a word nor a class of the judge in common with any of the texts."""
    words = {word for text in texts for word in fold(text).split()}
    classes = {judge.class_of(text) for text in texts} - {None} if judge else set()
    free = [u for u in UNRELATED if u not in words and not (judge and judge.class_of(u) in classes)]
    return (free or list(UNRELATED))[:UNRELATED_USED]
