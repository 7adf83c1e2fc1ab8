"""What a step learns from: one of the concept sets, x_t, and a choice of its corefs and retains."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from crce.backbones import Backbone
from crce.backbones.conditioning import Conditioning
from crce.config import ErasureConfig
from crce.methods.gradient import GradientMethod
from crce.methods.objective import Row, crce_loss, step_rows
from crce.training.adapters import Adapter
from crce.training.prompts import NULL, PromptTable, SetPrompts
from crce.training.trajectories import GuidedSampler, ImageBank, Trajectory, TrajectoryPool


class Predictor:
    """A backbone with an adapter: on, it is the student, off, the teacher; `micro_batch` 0 is all prompts at once."""

    def __init__(self, backbone: Backbone, adapter: Adapter, micro_batch: int = 0) -> None:
        self.backbone = backbone
        self.adapter = adapter
        self.micro_batch = micro_batch

    def parts(self, count: int) -> Iterator[slice]:
        """Slices of at most `micro_batch` that cover a batch of `count` prompts."""
        size = self.micro_batch or count or 1
        return (slice(start, start + size) for start in range(0, count, size))

    @torch.no_grad()
    def student(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        """Predictions of the network in training, without a graph, for R prompts.

        x_t and the predictions have shape (R, C, h, w), t has (R,).
        """
        return torch.cat([self.backbone.predict(x_t[p], t[p], cond[p]) for p in self.parts(len(x_t))])

    def teacher(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        """As `student`, of the base model."""
        with self.adapter.disabled():
            return self.student(x_t, t, cond)


@dataclass(frozen=True)
class StepBatch:
    """The rows of one step, the target's first, with their latents."""

    prompts: SetPrompts
    rows: list[Row[int]]
    x_t: torch.Tensor  # each row's latent, shape (R, C, h, w)
    t: torch.Tensor  # the timestep that the network is given for each row, shape (R,)
    timestep: float  # that of the erased rows
    extra: Conditioning | None = None  # states beyond the prompt table, which indices after its end mean
    places: int = 1  # of the erased rows on their trajectory; the rows of each follow one another


class StepSampler:
    """Samples the batches of a training run, and keeps the pools or banks of trajectories by set and side."""

    def __init__(
        self,
        table: PromptTable,
        method: GradientMethod,
        config: ErasureConfig,
        predictor: Predictor,
        generator: torch.Generator,
    ) -> None:
        """`micro_batch` of the predictor holds for trajectories too; `generator` is on the CPU."""
        self.table, self.predictor = table, predictor
        self._method, self._config = method, config
        self._generator = generator
        self.guided = GuidedSampler(predictor.backbone, table, config.ddim_steps, config.guidance, generator)
        self.timesteps = self.guided.timesteps
        if config.compat_timesteps:
            backbone, steps = predictor.backbone, len(self.timesteps)
            fine = backbone.grid(backbone.pipe.scheduler.config.num_train_timesteps).timesteps
            self.timesteps = [fine[int(k * len(fine) / steps)] for k in range(steps)]
        self.sources: dict[str, TrajectoryPool | ImageBank] = {}

    def batch(self) -> StepBatch:
        """The batch of the next step."""
        which = self.below(len(self.table.sets)) if len(self.table.sets) > 1 else 0
        prompts = self.table.sets[which]
        found = self.trajectories(which)
        x_erase, x_retain = found[0]
        rows, extra = self.rows(prompts, x_erase.prompt, x_retain)
        known = len(self.table.texts)
        worst = next((row.prompt for row in rows if row.role == "retain" and row.prompt < known), None)
        if self._method.retain_choice == "damaged" and worst is not None and x_retain is not x_erase:
            found[0] = x_erase, self.take(which, "retain", worst)  # an image of what was chosen, as the authors' code
        # States beyond the table are kept where the target is erased: they have no images of their own.
        apart = [row.role == "retain" and row.prompt < known for row in rows]
        places = [pair[kept] for pair in found for kept in apart]
        x_t = torch.cat([place.x_t for place in places])
        t = torch.tensor([self.timesteps[place.index] for place in places], device=x_t.device)
        share = [replace(row, weight=row.weight / len(found)) for row in rows] if len(found) > 1 else rows
        return StepBatch(prompts, share * len(found), x_t, t, self.timesteps[x_erase.index], extra, len(found))

    def below(self, n: int) -> int:
        """A random number from 0 to n - 1."""
        return int(torch.randint(n, (), generator=self._generator))

    def trajectories(self, which: int) -> list[tuple[Trajectory, Trajectory]]:
        """The trajectories whose x_t the erased rows and the retain rows of a set use, a pair for each x_t."""
        prompts = self.table.sets[which]
        own_retain = self._config.x_t_prompts == "mix" and bool(prompts.retains or prompts.everyday)
        if early := getattr(self._config, "early_steps", 0):
            wanted = [self._erase_prompt(prompts)] + ([self.retain_prompt(prompts)] if own_retain else [])
            places = self.guided.beginnings(wanted, early, self.predictor.micro_batch)
            return [(place[0], place[-1]) for place in places]
        x_erase = self.take(which, "erase")
        return [(x_erase, self.take(which, "retain") if own_retain else x_erase)]

    def _erase_prompt(self, prompts: SetPrompts) -> int:
        """Whose trajectory erased prompts learn from: under `mix`, every second one is a coref's."""
        if self._method.trajectories == "base":
            return prompts.base
        if self._config.x_t_prompts == "target" or not prompts.corefs or self.below(2):
            return prompts.prompt
        return prompts.corefs[self.below(len(prompts.corefs))][0]

    def retain_prompt(self, prompts: SetPrompts) -> int:
        """Whose trajectory kept prompts learn from: as often an everyday phrase as a retain, where there are both."""
        lists = [kept for kept in (prompts.retains, prompts.everyday) if kept]
        kept = lists[self.below(2)] if len(lists) > 1 else lists[0]
        return kept[self.below(len(kept))][0]

    def fresh_index(self) -> int:
        """A random place on the grid that steps learn from, as in the official code no pure noise or last level."""
        levels = len(self.guided.timesteps) - 2
        return 1 + self.below(min(levels, getattr(self._config, "early_steps", levels)))

    def take(self, which: int, side: str, prompt: int | None = None) -> Trajectory:
        """The next trajectory of a set for a side, "erase" or "retain", or for one prompt of it; made on first use."""
        name, micro_batch = f"{which}-{side}", self.predictor.micro_batch
        new_prompt = partial(self._erase_prompt if side == "erase" else self.retain_prompt, self.table.sets[which])
        if prompt is not None:
            name, new_prompt = f"{name}-{prompt}", partial(int, prompt)
        if self._config.x_t_source == "student":
            return self.guided.fresh([new_prompt()], [self.fresh_index()], micro_batch)[0]
        if name not in self.sources:
            # Scenes share the pool, so that they cost no more; each set has one of its own.
            size = max(1, self._config.pool // max(1, len(self._config.scenes))) if prompt is None else 1
            wanted = [new_prompt() for _ in range(size)]
            if self._config.x_t_source == "rolling":
                first = self.fresh_index() if prompt is not None else 1
                self.sources[name] = TrajectoryPool.spread(self.guided, wanted, micro_batch, first)
            else:
                with self.predictor.adapter.disabled():  # the images are the base model's
                    self.sources[name] = ImageBank.generated(self.guided, wanted, micro_batch)
        return self.sources[name].take(new_prompt, micro_batch)

    def rows(
        self, prompts: SetPrompts, erase_prompt: int, x_retain: Trajectory
    ) -> tuple[list[Row[int]], Conditioning | None]:
        """The step's rows, and the states beyond the table that some of them mean."""
        config = self._config
        corefs = self._order(prompts.corefs, erase_prompt)[: config.corefs_per_step]
        damaged_at = x_retain if self._method.retain_choice == "damaged" else None
        retains = self._order(prompts.retains, x_retain.prompt, damaged_at)[: config.retains_per_step]
        everyday = self._order(prompts.everyday, x_retain.prompt)[: config.retains_per_step]
        rows = step_rows(prompts.prompt, prompts.target, corefs, retains, config.alpha, config.beta, everyday)
        numbers, beyond = itertools.count(len(self.table.texts)), []
        held = [self._method.kept_states(self.table.cond[[prompts.target]], config, self._generator)]
        if config.harden:  # a search begins between the retains, and what it finds would take them along
            named = [NULL, *(i for i, _ in prompts.retains)]
            held.append((self.table.mixtures(named, max(1, len(retains)), self._generator), config.beta))
        for states, weight in filter(None, held):
            beyond.append(states)
            rows += [Row(i, i, weight / len(states), "retain") for i in itertools.islice(numbers, len(states))]
        return rows, Conditioning.cat(beyond) if beyond else None

    def _order(
        self, related: list[tuple[int, float]], own: int, damaged_at: Trajectory | None = None
    ) -> list[tuple[int, float]]:
        """The order in which a step takes corefs or retains: at random, or the most damaged at one x_t first."""
        order = torch.randperm(len(related), generator=self._generator).tolist()
        related = [related[i] for i in order]
        if damaged_at is not None and related:
            # How far the student's predictions are from the teacher's at this x_t, for each prompt.
            x_t = damaged_at.x_t.expand(len(related), -1, -1, -1)
            t = torch.full((len(related),), self.timesteps[damaged_at.index], device=x_t.device)
            cond = self.table.cond[[i for i, _ in related]]
            teacher = self.predictor.teacher(x_t, t, cond)
            _, errors = crce_loss(self.predictor.student(x_t, t, cond), teacher, torch.ones_like(t))
            damage = dict(zip(related, errors.tolist(), strict=True))
            return sorted(related, key=lambda item: -damage[item])
        if self._config.x_t_prompts == "mix":  # the prompt whose trajectory is used is always among them
            related.sort(key=lambda item: item[0] != own)
        return related

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain values of the sources, see `load_state`."""
        tensors, values = {}, {}
        for name, source in self.sources.items():
            tensors[name] = torch.cat([t.x_t for t in source.trajectories])
            values[name] = {"turn": source.turn, "places": [[t.prompt, t.index] for t in source.trajectories]}
        return tensors, values

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        kind = TrajectoryPool if self._config.x_t_source == "rolling" else ImageBank
        for name, saved in values.items():
            latents = tensors[name].to(self.predictor.backbone.device).split(1)
            trajectories = [Trajectory(p, i, x) for (p, i), x in zip(saved["places"], latents, strict=True)]
            self.sources[name] = kind(self.guided, trajectories, saved["turn"])
