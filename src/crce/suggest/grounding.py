"""Ask the diffusion model itself what it draws for a phrase, before anything is trained.

For a phrase p and the target c, on latents x_t that the model visits while it draws either of them,

    d_t(p) = mean over x_t of || eps(x_t, t, p) - eps(x_t, t, c) ||^2
    distance(p) = mean over t of d_t(p) / median over unrelated phrases u of d_t(u)
    closeness(p) = 1 - distance(p), cut to [0, 1]

so that 0 means "as far as an unrelated phrase" and 1 "predicts exactly what the target does". The ratio is taken at
each noise level, so it is the same whether a model predicts eps or v, and every level counts alike. Where a judge
knows the target, the pictures at the ends of the same trajectories are shown to it as well.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crce.concepts.concept_set import fold
from crce.errors import SuggestError


if TYPE_CHECKING:
    import torch

    from crce.backbones import Backbone, Conditioning
    from crce.judges import Judge
    from crce.suggest.candidates import Candidate

logger = logging.getLogger(__name__)

# Everyday things and animals in turn, far from each other: the median of their distances is that of an unrelated
# phrase even when the target is akin to one or two of them.
UNRELATED = (
    *("umbrella", "fish", "guitar", "spider", "house", "butterfly", "pizza", "snowman"),
    *("train", "tree", "banana", "rainbow", "bicycle", "crown", "rocket", "mushroom"),
)
UNRELATED_USED = 6
STEPS = 12  # of the grid; the judge reads pictures of 12 steps as well as of 20
GUIDANCE = 4.0  # that of an evaluation

# Closeness at which every second picture shows the target, and how fast that changes: a logistic curve fitted on the
# bundled model to what the judge saw in pictures of its atlas's phrases (see benchmarks/suggest/grounding.py).
HALF_DRAWN = 0.75
WIDTH = 0.07
CURVE_PICTURES = 2  # the curve counts as much as this many judged pictures
ENTANGLED = 0.5  # a retain that more pictures than this draw as the target is the target to this model
FLOOR = 0.1  # an unknown coref keeps this share of its certainty: the person who reviews may know better


@dataclass(frozen=True)
class Grounded:
    """What the model makes of a phrase.

    Attributes:
        distance: how far its predictions are from the target's; 1 is the distance of an unrelated phrase.
        closeness: 1 - distance, in [0, 1].
        judged: share of pictures in which the judge sees the target; None where no judge could say.
        images: pictures the judge saw.
        samples: latents x_t at which predictions were compared.
    """

    distance: float
    closeness: float
    judged: float | None
    images: int
    samples: int

    @property
    def drawn(self) -> float:
        """The estimated share of its pictures that show the target, in [0, 1], from closeness and judge together."""
        curve = 1 / (1 + math.exp((HALF_DRAWN - self.closeness) / WIDTH))
        seen = 0.0 if self.judged is None else self.judged * self.images
        return (curve * CURVE_PICTURES + seen) / (CURVE_PICTURES + (0 if self.judged is None else self.images))


@dataclass(frozen=True)
class Noted:
    """A candidate after grounding.

    Attributes:
        candidate: as proposed, a coref's certainty multiplied by how surely the model draws the target for it.
        note: one line that says what the model does with the phrase; empty where it was not asked.
        closeness: see `Grounded`; None where the model was not asked.
        priority: what to choose by, in [0, 1]: of equally certain retains the closest, most at risk, is the highest.
        entangled: a retain that the model draws as the target. Not to be trained on: keeping it keeps the target.
    """

    candidate: Candidate
    note: str
    closeness: float | None
    priority: float
    entangled: bool = False


def apply_grounding(candidates: Sequence[Candidate], grounded: dict[str, Grounded]) -> list[Noted]:
    """Weigh candidates by what the model draws for them; none is removed.

    Args:
        candidates: corefs and retains.
        grounded: what `ground` returned; candidates that it lacks keep their certainty.

    Returns:
        Corefs, then retains, each side by falling priority; entangled retains come last.
    """
    noted = [_note(candidate, grounded.get(candidate.text)) for candidate in candidates]
    return sorted(noted, key=lambda n: (n.candidate.side == "retain", n.entangled, -n.priority))


def _note(candidate: Candidate, grounded: Grounded | None) -> Noted:
    if grounded is None:
        return Noted(candidate, "", None, candidate.certainty)
    seen = "no pictures judged"
    if grounded.judged is not None:
        seen = f"{round(grounded.judged * grounded.images)} of {grounded.images} pictures show the target"
    measured = f"closeness {grounded.closeness:.2f}, {seen}"
    drawn, closeness = grounded.drawn, grounded.closeness
    if candidate.side == "coref":
        weighed = replace(candidate, certainty=round(candidate.certainty * max(drawn, FLOOR), 2))
        what = "often" if drawn >= 0.8 else "sometimes" if drawn >= 0.3 else "hardly ever"
        return Noted(weighed, f"the model {what} draws the target for it ({measured})", closeness, weighed.certainty)
    if drawn > ENTANGLED:
        why = "entangled: the model draws the target for it, so keeping it would keep the target"
        return Noted(candidate, f"{why} ({measured})", closeness, 0.0, entangled=True)
    where = "lies close to the target and is most at risk" if closeness >= 0.4 else "is drawn as something else"
    priority = round(candidate.certainty * (1 + closeness) / 2, 4)
    return Noted(candidate, f"{where} ({measured})", closeness, priority)


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
    """Measure how much each phrase is the target to a model, from the model as it is.

    Every trajectory k starts from the same noise for all phrases, so that two phrases differ by their words alone.

    Args:
        target: the phrase to erase.
        phrases: candidates of either side.
        backbone: the model, with no adapter on.
        judge: shown pictures of each phrase where it knows the target.
        seed: of the starting noise.
        latents: trajectories whose latents are compared, for each phrase.
        timesteps: noise levels compared on each trajectory, spread evenly.
        images: pictures of each phrase for the judge.
        unrelated: phrases that have nothing to do with the target; None takes everyday nouns.

    Returns:
        A measurement for every phrase, and one for the target itself (closeness 1, with its own pictures judged).

    Raises:
        SuggestError: a number is below 1, or the model's predictions are not numbers or do not depend on the prompt.
    """
    import torch

    for name, value in {"latents": latents, "timesteps": timesteps, "images": images}.items():
        if value < 1:
            raise SuggestError(f"{name} is {value}. Use 1 or more.")
    texts = list(dict.fromkeys([target, *phrases]))
    others = list(dict.fromkeys(_unrelated(texts, judge) if unrelated is None else unrelated))
    if not others:
        raise SuggestError("There is no unrelated phrase to compare with. Name some, e.g. unrelated=['umbrella'].")
    target_class = judge.class_of(target) if judge else None
    pictures = images if target_class else 0
    with torch.inference_mode():
        probe = _Probe(backbone, [*texts, *others], seed, latents, timesteps)
        end = probe.run(max(latents, pictures), drawing=len(texts) if pictures else 0)
        ratio = _ratios(probe.distances(), len(texts))
        shares: list[float | None] = [None] * len(texts)
        if judge and target_class:
            shares = _judged(backbone, judge, target_class, end.unflatten(0, (len(texts), -1))[:, :pictures])
    if shares[0] is not None and shares[0] < 0.5:
        # what the judge does not see in the target's own pictures, it can't miss in another phrase's
        told = "The judge sees '%s' in only %.0f%% of the pictures of '%s', so it is not asked about other phrases."
        logger.warning(told, target_class, 100 * shares[0], target)
        shares, pictures = [None] * len(texts), 0
    samples = 2 * latents * timesteps
    return {
        text: Grounded(round(far, 4), round(min(max(1 - far, 0.0), 1.0), 4), share, pictures, samples)
        for text, far, share in zip(texts, ratio, shares, strict=True)
    }


class _Probe:
    """Trajectories of several phrases (the first is the target) and predictions on them.

    P phrases, K trajectories each, T noise levels; latents (C, h, w).
    """

    def __init__(self, backbone: Backbone, texts: list[str], seed: int, latents: int, timesteps: int) -> None:
        import torch

        from crce.backbones import Conditioning
        from crce.backbones.backbone import latents_at_once

        self._backbone = backbone
        self._texts = len(texts)
        self._latents = latents
        self._grid = backbone.grid(max(STEPS, timesteps))
        self._levels = [len(self._grid.timesteps) * i // timesteps for i in range(timesteps)]
        self._generator = torch.Generator().manual_seed(seed)
        self._batch = latents_at_once(*backbone.latent_shape[1:])  # as pictures are drawn
        chunks = [texts[i : i + 32] for i in range(0, len(texts), 32)]
        self._prompts = Conditioning.cat([backbone.encode(chunk) for chunk in chunks])
        self._null = backbone.encode([""])
        self._x: list[torch.Tensor] = []  # T times (P, K, C, h, w)
        self._own: list[torch.Tensor] = []  # each phrase's prediction on its own latents, in the same shape

    def run(self, pictures: int, drawing: int) -> torch.Tensor:
        """Draw, and keep what `distances` needs.

        Args:
            pictures: trajectories of each phrase that is drawn to the end; at least K.
            drawing: how many of the first phrases are drawn to the end; the others stop at the last level compared.

        Returns:
            The ends, shape (drawing * pictures, C, h, w).
        """
        import torch

        shape = self._backbone.latent_shape
        noise = torch.randn(pictures, *shape, generator=self._generator) * self._grid.noise_scale
        noise = noise.to(self._backbone.device)
        counts = [pictures if i < drawing else self._latents for i in range(self._texts)]
        phrase = torch.tensor([i for i, count in enumerate(counts) for _ in range(count)], device=noise.device)
        compared = torch.tensor([k < self._latents for count in counts for k in range(count)], device=noise.device)
        x_t = torch.cat([noise[:count] for count in counts])
        for position, t in enumerate(self._grid.timesteps):
            own = self._predict(x_t, t, self._prompts, phrase)
            if position in self._levels:
                self._x.append(x_t[compared].view(self._texts, -1, *shape))
                self._own.append(own[compared].view(self._texts, -1, *shape))
            if position == self._levels[-1]:
                kept = drawing * pictures
                x_t, own, phrase = x_t[:kept], own[:kept], phrase[:kept]
            if not len(x_t):
                break
            null = self._predict(x_t, t, self._null, torch.zeros_like(phrase))
            x_t = self._grid.step(null + GUIDANCE * (own - null), position, x_t)
        return x_t

    def distances(self) -> torch.Tensor:
        """d_t of every phrase, shape (P, T), over its own latents and the target's."""
        import torch

        rows = []
        for position, x, own in zip(self._levels, self._x, self._own, strict=True):
            t = self._grid.timesteps[position]
            phrase = torch.arange(self._texts, device=x.device).repeat_interleave(x.shape[1])
            on_target = self._predict(x[0].repeat(self._texts, 1, 1, 1), t, self._prompts, phrase)
            target = self._predict(x.flatten(0, 1), t, self._prompts, torch.zeros_like(phrase))
            there = (on_target.view_as(own) - own[:1]).square().flatten(1).mean(1)
            here = (own - target.view_as(own)).square().flatten(1).mean(1)
            rows.append((there + here) / 2)
        return torch.stack(rows, 1)

    def _predict(self, x_t: torch.Tensor, t: float, prompts: Conditioning, which: torch.Tensor) -> torch.Tensor:
        """Predictions for latents (R, C, h, w), each under prompt `which` (R,), batch by batch."""
        import torch

        parts = zip(x_t.split(self._batch), which.split(self._batch), strict=True)
        return torch.cat([self._backbone.predict(x, t, prompts[rows]) for x, rows in parts])


def _ratios(distances: torch.Tensor, count: int) -> list[float]:
    """Distances of the first `count` phrases relative to the median of the others, from d_t (P, T)."""
    far = distances[count:].quantile(0.5, dim=0)
    if not distances.isfinite().all():
        raise SuggestError("The model predicts values that are not numbers. Load it with dtype float32.")
    if (far <= 0).any():
        raise SuggestError("The model predicts the same for every prompt, so it can't tell phrases apart.")
    return (distances[:count] / far).mean(1).tolist()


def _judged(backbone: Backbone, judge: Judge, target_class: str, ends: torch.Tensor) -> list[float | None]:
    """Share of each phrase's pictures that show the target's class, from final latents (P, images, C, h, w)."""
    wanted = judge.classes.index(target_class)
    shares: list[float | None] = []
    for latents in ends:
        tops = judge.probs(backbone.decode(latents)).argmax(1)
        shares.append((tops == wanted).float().mean().item())
    return shares


def _unrelated(texts: list[str], judge: Judge | None) -> list[str]:
    """Everyday nouns that share neither a word nor a class of the judge with any of the texts."""
    words = {word for text in texts for word in fold(text).split()}
    classes = {judge.class_of(text) for text in texts} - {None} if judge else set()
    free = [u for u in UNRELATED if u not in words and not (judge and judge.class_of(u) in classes)]
    return (free or list(UNRELATED))[:UNRELATED_USED]
