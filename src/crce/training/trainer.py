"""The optimizer step: one batch of the teacher, one batch of the student, over target, corefs and retains."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from crce.backbones.conditioning import Conditioning
from crce.methods import METHODS
from crce.methods.objective import ROLES, Row, make_rows, row_losses, row_targets
from crce.training.adapters import new_adapter
from crce.training.prompts import SetPrompts, make_table
from crce.training.trajectories import Album, Pool, Source, Trajectory, Walk
from crce.training.vocabulary import near_vocabulary


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.concepts import ConceptSet
    from crce.config import ErasureConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """Losses of one step. `terms` are the objective's sums over target, corefs and retains; they add up to `loss`."""

    loss: float
    terms: dict[str, float]
    timestep: float


class Trainer:
    """Erases concept sets from a backbone, step by step; each step learns from one of the sets.

    Attributes:
        adapter: what is trained.
        optimizer: Adam over the adapter's parameters.
        generator: CPU generator behind every random choice.
        step_count: steps done.
    """

    def __init__(self, backbone: Backbone, sets: Sequence[ConceptSet], config: ErasureConfig) -> None:
        self.backbone = backbone
        self.config = config
        self._method = METHODS[config.method]
        own = not config.crce or self._method.vocabulary_stays
        vocabulary = near_vocabulary(backbone, sets, self._method.vocabulary) if own else []
        self._table = make_table(backbone, sets, crce=config.crce, vocabulary=vocabulary, scenes=config.scenes)
        backbone.begin_training()
        self.adapter = new_adapter(
            backbone, config.adapter, config.layers, config.rank, config.lora_alpha, config.seed
        )
        if config.gradient_checkpointing:
            # Diffusers recomputes wherever gradients are asked for, so that evaluation mode, without dropout, stays.
            backbone.network.enable_gradient_checkpointing()
        self.optimizer = torch.optim.Adam(self.adapter.parameters(), lr=config.learning_rate)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step_count = 0
        self._micro_batch = config.micro_batch
        self._walk = Walk(backbone, self._table, config.ddim_steps, config.guidance, self.generator)
        self._told = _told_timesteps(backbone, self._walk, config)
        self._sources: dict[str, Source] = {}

    # ---- one step -------------------------------------------------------------------------------------------------

    def step(self) -> StepResult:
        """Draw x_t and this step's rows, and make one optimizer step."""
        which = self._below(len(self._table.sets)) if len(self._table.sets) > 1 else 0
        prompts = self._table.sets[which]
        x_erase, x_retain = self._trajectories(which, prompts)
        rows, extra = self._rows(prompts, x_erase.prompt, x_retain)
        # States beyond the table are held where the target is erased: they have no pictures of their own.
        known = len(self._table.texts)
        places = [x_retain if row.role == "retain" and row.prompt < known else x_erase for row in rows]
        x_t = torch.cat([place.x_t for place in places])
        t = torch.tensor([self._told[place.index] for place in places], device=x_t.device)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.backward(prompts, rows, x_t, t, extra)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        self.step_count += 1
        weighted: dict[str, float] = dict.fromkeys(ROLES, 0.0)
        for row, loss in zip(rows, losses, strict=True):
            weighted[row.role] += row.weight * loss
        return StepResult(sum(weighted.values()), weighted, self._told[x_erase.index])

    def backward(
        self,
        prompts: SetPrompts,
        rows: list[Row],
        x_t: torch.Tensor,
        t: torch.Tensor,
        extra: Conditioning | None = None,
    ) -> list[float]:
        """Accumulate the gradient of the objective at given x_t.

        Args:
            prompts: the concept set that the rows are of.
            rows: terms of the objective; the first is the target's.
            x_t: each row's latent, shape (R, C, h, w).
            t: each row's timestep, shape (R,).
            extra: states beyond the table, which the indices after its end mean.

        Returns:
            Each row's mean squared error, without its weight.
        """
        cond = self._table.cond if extra is None else Conditioning.cat([self._table.cond, extra])
        while True:
            try:
                return self._backward(prompts, rows, x_t, t, cond)
            except torch.OutOfMemoryError:
                size = self._micro_batch or len(rows)
                if size == 1:
                    raise
                self._micro_batch = size // 2
                self.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                logger.warning("Memory ran out at %d prompts per forward; going on with %d.", size, self._micro_batch)

    def _backward(
        self, prompts: SetPrompts, rows: list[Row], x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning
    ) -> list[float]:
        target = self._targets(prompts, rows, x_t, t, cond)
        weights = torch.tensor([row.weight for row in rows], device=x_t.device)
        size = self._micro_batch or len(rows)
        losses: list[float] = []
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            loss = row_losses(
                self.backbone.predict(x_t[part], t[part], self._students(rows[part], cond)), target[part]
            )
            (weights[part] * loss).sum().backward()
            losses += loss.detach().tolist()
        return losses

    def _students(self, rows: list[Row], cond: Conditioning) -> Conditioning:
        """What the student is told in each row."""
        return cond[[row.prompt for row in rows]]

    @torch.no_grad()
    def _targets(
        self, prompts: SetPrompts, rows: list[Row], x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning
    ) -> torch.Tensor:
        # Besides each row's concept: what is there without it, and the base where that is something else.
        asked = [prompts.null] if prompts.base == prompts.null else [prompts.null, prompts.base]
        n = len(asked)
        x_all, t_all = torch.cat([x_t[:1].expand(n, -1, -1, -1), x_t]), torch.cat([t[:1].expand(n), t])
        with self.adapter.disabled():
            eps = self._predict(x_all, t_all, cond[asked + [row.concept for row in rows]])
        eps_null, eps_base = eps[:1], eps[n - 1 : n]
        if self._method.base_from == "student":
            eps_base = self._predict(x_t[:1], t[:1], cond[[prompts.base]])
        return row_targets(self._method, rows, eps_base, eps_null, eps[n:], self.config.eta)

    def _predict(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        size = self._micro_batch or len(x_t)
        parts = zip(x_t.split(size), t.split(size), cond.split(size), strict=True)
        return torch.cat([self.backbone.predict(x, s, c) for x, s, c in parts])

    def _learning_rate(self) -> float:
        """The rate of the step to come; a function of the step alone, so that a resumed run takes the same ones."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        return self.config.learning_rate * (1 + math.cos(math.pi * self.step_count / self.config.steps)) / 2

    # ---- what a step is made of -----------------------------------------------------------------------------------

    def _below(self, n: int) -> int:
        return int(torch.randint(n, (), generator=self.generator))

    def _erase_prompt(self, prompts: SetPrompts) -> int:
        """Whose trajectory erased prompts learn from: under `mix`, every second one is a coref's."""
        if self._method.pictures == "base":
            return prompts.base
        if self.config.x_t_prompts == "target" or not prompts.corefs or self._below(2):
            return prompts.prompt
        return prompts.corefs[self._below(len(prompts.corefs))][0]

    def _retain_prompt(self, prompts: SetPrompts) -> int:
        """Whose trajectory kept prompts learn from: where everyday phrases stand beside retains, either as often."""
        lists = [kept for kept in (prompts.retains, prompts.everyday) if kept]
        kept = lists[self._below(2)] if len(lists) > 1 else lists[0]
        return kept[self._below(len(kept))][0]

    def _trajectories(self, which: int, prompts: SetPrompts) -> tuple[Trajectory, Trajectory]:
        """The trajectories whose x_t this step's erased rows and retain rows use."""
        own_retain = self.config.x_t_prompts == "mix" and bool(prompts.retains or prompts.everyday)
        if self.config.x_t_source == "student":
            x_erase = self._walk.fresh(self._erase_prompt(prompts), self._fresh_index(), self._micro_batch)
            if not own_retain:
                return x_erase, x_erase
            return x_erase, self._walk.fresh(self._retain_prompt(prompts), self._fresh_index(), self._micro_batch)
        x_erase = self._take(which, "erase")
        return x_erase, self._take(which, "retain") if own_retain else x_erase

    def _fresh_index(self) -> int:
        # As in the official code: neither pure noise nor the last level.
        return 1 + self._below(len(self._walk.timesteps) - 2)

    def _take(self, which: int, side: str) -> Trajectory:
        """The next trajectory of a set's own source for one side, which is made when it is first asked."""
        prompts, name = self._table.sets[which], f"{which}-{side}"

        def new_prompt() -> int:
            return self._erase_prompt(prompts) if side == "erase" else self._retain_prompt(prompts)

        if name not in self._sources:
            # Scenes share the pool, so that they cost no more; each set has one of its own.
            size = max(1, self.config.pool // max(1, len(self.config.scenes)))
            wanted = [new_prompt() for _ in range(size)]
            if self.config.x_t_source == "rolling":
                self._sources[name] = Pool.spread(self._walk, wanted, self._micro_batch)
            else:
                with self.adapter.disabled():  # the pictures are the base model's
                    self._sources[name] = Album.drawn(self._walk, wanted, self._micro_batch)
        return self._sources[name].take(new_prompt, self._micro_batch)

    def _rows(
        self, prompts: SetPrompts, erase_prompt: int, x_retain: Trajectory
    ) -> tuple[list[Row], Conditioning | None]:
        """The step's rows, and the states beyond the table that the last of them mean."""
        corefs = self._order(prompts.corefs, "random", erase_prompt)[: self.config.corefs_per_step]
        retains = self._order(prompts.retains, self._method.retain_choice, x_retain.prompt, x_retain)
        retains = retains[: self.config.retains_per_step]
        everyday = self._order(prompts.everyday, "random", x_retain.prompt)[: self.config.retains_per_step]
        rows = make_rows(
            prompts.prompt, prompts.target, corefs, retains, self.config.alpha, self.config.beta, everyday
        )
        kept = self._method.kept_states(self._table.cond[[prompts.target]], self.config, self.generator)
        if kept is None:
            return rows, None
        states, weight = kept
        first = len(self._table.texts)
        return rows + [Row("retain", first + i, first + i, weight / len(states)) for i in range(len(states))], states

    def _order(
        self, related: list[tuple[int, float]], choice: str, own: int, at: Trajectory | None = None
    ) -> list[tuple[int, float]]:
        """In which order a step takes corefs or retains: without replacement, as many as it is told."""
        order = torch.randperm(len(related), generator=self.generator).tolist()
        related = [related[i] for i in order]
        if choice == "damaged" and at is not None and related:
            changed = dict(zip(related, self._changed([i for i, _ in related], at), strict=True))
            return sorted(related, key=lambda item: -changed[item])
        if self.config.x_t_prompts == "mix":  # whose pictures they are is among them
            related.sort(key=lambda item: item[0] != own)
        return related

    @torch.no_grad()
    def _changed(self, prompts: list[int], at: Trajectory) -> list[float]:
        """How far the student's predictions are from the teacher's at one x_t, by prompt."""
        x_t = at.x_t.expand(len(prompts), -1, -1, -1)
        t = torch.full((len(prompts),), self._told[at.index], device=x_t.device)
        cond = self._table.cond[prompts]
        with self.adapter.disabled():
            teacher = self._predict(x_t, t, cond)
        return row_losses(self._predict(x_t, t, cond), teacher).tolist()

    def close(self) -> None:
        """Hand the backbone back as it was."""
        self.adapter.close()
        if self.config.gradient_checkpointing:
            self.backbone.network.disable_gradient_checkpointing()

    # ---- state ----------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain values that `load_state` continues from exactly."""
        tensors = {f"adapter.{k}": v for k, v in self.adapter.state().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
        tensors["generator"] = self.generator.get_state()
        values: dict[str, Any] = {"step": self.step_count, "micro_batch": self._micro_batch, "sources": {}}
        for name, source in self._sources.items():
            tensors[f"source.{name}"] = torch.cat([t.x_t for t in source.trajectories])
            places = [[t.prompt, t.index] for t in source.trajectories]
            values["sources"][name] = {"turn": source.turn, "places": places}
        return tensors, values

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.adapter.load({k.removeprefix("adapter."): v for k, v in tensors.items() if k.startswith("adapter.")})
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, i, key = name.split(".")
                moments.setdefault(int(i), {})[key] = tensor
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.generator.set_state(tensors["generator"])
        self.step_count = values["step"]
        self._micro_batch = values["micro_batch"]
        kind = Pool if self.config.x_t_source == "rolling" else Album
        for name, saved in values["sources"].items():
            latents = tensors[f"source.{name}"].to(self.backbone.device).split(1)
            trajectories = [Trajectory(p, i, x) for (p, i), x in zip(saved["places"], latents, strict=True)]
            self._sources[name] = kind(self._walk, trajectories, saved["turn"])


def _told_timesteps(backbone: Backbone, walk: Walk, config: ErasureConfig) -> list[float]:
    """The timestep told to the network at each position: the latent's own, unless the official offset is asked for."""
    if not config.compat_timesteps:
        return walk.timesteps
    fine = backbone.grid(backbone.pipe.scheduler.config.num_train_timesteps).timesteps
    return [fine[int(k * len(fine) / config.ddim_steps)] for k in range(config.ddim_steps)]
