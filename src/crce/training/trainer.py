"""The optimizer step: one batch of the teacher, one batch of the student, over target, corefs and retains."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from crce.methods import METHODS
from crce.methods.objective import ROLES, Row, make_rows, row_losses, row_targets
from crce.training.adapters import new_adapter
from crce.training.trajectories import Grid, Pool, Trajectory


if TYPE_CHECKING:
    from crce.backbones import UNetBackbone
    from crce.concepts import ConceptSet
    from crce.training.config import ErasureConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """Losses of one step. `terms` are the objective's sums over target, corefs and retains; they add up to `loss`."""

    loss: float
    terms: dict[str, float]
    timestep: int


class Trainer:
    """Erases a concept set from a backbone, step by step.

    Attributes:
        adapter: what is trained.
        optimizer: Adam over the adapter's parameters.
        generator: CPU generator behind every random choice.
        step_count: steps done.
    """

    def __init__(self, backbone: UNetBackbone, concepts: ConceptSet, config: ErasureConfig) -> None:
        self.backbone = backbone
        self.config = config
        self._method = METHODS[config.method]
        self._encode(concepts)
        self.adapter = new_adapter(
            backbone, config.adapter, config.layers, config.rank, config.lora_alpha, config.seed
        )
        self.optimizer = torch.optim.Adam(self.adapter.parameters(), lr=config.learning_rate)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step_count = 0
        self._micro_batch = config.micro_batch
        self._grid = Grid(backbone, self._hidden, 0, config.ddim_steps, config.guidance, self.generator)
        self._told = _told_timesteps(self._grid, config)
        self._pools: dict[str, Pool] = {}

    def _encode(self, concepts: ConceptSet) -> None:
        """Encode every prompt once; from here on prompts are indices into `self._hidden`."""
        corefs = concepts.train_corefs if self.config.crce else ()
        retains = concepts.train_retains if self.config.crce else ()
        base = concepts.erase_from or concepts.anchor or ""
        texts = ["", base, concepts.target, *(r.text for r in corefs), *(r.text for r in retains)]
        unique = list(dict.fromkeys(texts))
        index = {text: i for i, text in enumerate(unique)}
        self._hidden = self.backbone.encode(unique)
        self._base = index[base]
        self._target = index[concepts.target]
        self._prompt = index[concepts.erase_from] if concepts.erase_from else self._target
        self._corefs = [(index[r.text], r.certainty) for r in corefs]
        self._retains = [(index[r.text], r.certainty) for r in retains]

    # ---- one step -------------------------------------------------------------------------------------------------

    def step(self) -> StepResult:
        """Draw x_t and this step's rows, and make one optimizer step."""
        x_erase, x_retain = self._trajectories()
        rows = self._rows(x_erase.prompt, x_retain.prompt)
        x_t = torch.cat([x_retain.x_t if row.role == "retain" else x_erase.x_t for row in rows])
        t_erase, t_retain = self._told[x_erase.index], self._told[x_retain.index]
        t = torch.tensor([t_retain if row.role == "retain" else t_erase for row in rows], device=x_t.device)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.backward(rows, x_t, t)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.step()
        self.step_count += 1
        weighted: dict[str, float] = dict.fromkeys(ROLES, 0.0)
        for row, loss in zip(rows, losses, strict=True):
            weighted[row.role] += row.weight * loss
        return StepResult(sum(weighted.values()), weighted, t_erase)

    def backward(self, rows: list[Row], x_t: torch.Tensor, t: torch.Tensor) -> list[float]:
        """Accumulate the gradient of the objective at given x_t.

        Args:
            rows: terms of the objective; the first is the target's.
            x_t: each row's latent, shape (R, C, h, w).
            t: each row's timestep, shape (R,).

        Returns:
            Each row's mean squared error, without its weight.
        """
        while True:
            try:
                return self._backward(rows, x_t, t)
            except torch.OutOfMemoryError:
                size = self._micro_batch or len(rows)
                if size == 1:
                    raise
                self._micro_batch = size // 2
                self.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                logger.warning("Memory ran out at %d prompts per forward; going on with %d.", size, self._micro_batch)

    def _backward(self, rows: list[Row], x_t: torch.Tensor, t: torch.Tensor) -> list[float]:
        target = self._teacher_targets(rows, x_t, t)
        weights = torch.tensor([row.weight for row in rows], device=x_t.device)
        hidden = self._hidden[[row.prompt for row in rows]]
        size = self._micro_batch or len(rows)
        losses: list[float] = []
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            loss = row_losses(self.backbone.predict(x_t[part], t[part], hidden[part]), target[part])
            (weights[part] * loss).sum().backward()
            losses += loss.detach().tolist()
        return losses

    @torch.no_grad()
    def _teacher_targets(self, rows: list[Row], x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        # Besides each row's concept the teacher is asked for the empty prompt and, when another one is the base, that.
        extra = [0] if self._base == 0 else [0, self._base]
        prompts = self._hidden[extra + [row.concept for row in rows]]
        x_all = torch.cat([x_t[:1].expand(len(extra), -1, -1, -1), x_t])
        t_all = torch.cat([t[:1].expand(len(extra)), t])
        size = self._micro_batch or len(x_all)
        with self.adapter.disabled():
            parts = zip(x_all.split(size), t_all.split(size), prompts.split(size), strict=True)
            eps = torch.cat([self.backbone.predict(x, s, h) for x, s, h in parts])
        eps_null, eps_base, eps_concepts = eps[:1], eps[len(extra) - 1 : len(extra)], eps[len(extra) :]
        return row_targets(self._method, rows, eps_base, eps_null, eps_concepts, self.config.eta)

    def _learning_rate(self) -> float:
        """The rate of the step to come; a function of the step alone, so that a resumed run takes the same ones."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        return self.config.learning_rate * (1 + math.cos(math.pi * self.step_count / self.config.steps)) / 2

    # ---- what a step is made of -----------------------------------------------------------------------------------

    def _below(self, n: int) -> int:
        return int(torch.randint(n, (), generator=self.generator))

    def _erase_prompt(self) -> int:
        """Whose trajectory erased prompts learn from: under `mix`, every second one is a coref's."""
        if self.config.x_t_prompts == "target" or not self._corefs or self._below(2):
            return self._prompt
        return self._corefs[self._below(len(self._corefs))][0]

    def _retain_prompt(self) -> int:
        return self._retains[self._below(len(self._retains))][0]

    def _trajectories(self) -> tuple[Trajectory, Trajectory]:
        """The trajectories whose x_t this step's erased rows and retain rows use."""
        own_retain = self.config.x_t_prompts == "mix" and bool(self._retains)
        if self.config.x_t_source == "student":
            x_erase = self._grid.fresh(self._erase_prompt(), self._fresh_index(), self._micro_batch)
            if not own_retain:
                return x_erase, x_erase
            return x_erase, self._grid.fresh(self._retain_prompt(), self._fresh_index(), self._micro_batch)
        x_erase = self._pool("erase").take(self._erase_prompt, self._micro_batch)
        return x_erase, self._pool("retain").take(self._retain_prompt, self._micro_batch) if own_retain else x_erase

    def _fresh_index(self) -> int:
        # As in the official code: neither pure noise nor the last level.
        return 1 + self._below(len(self._grid.timesteps) - 2)

    def _pool(self, side: str) -> Pool:
        if side not in self._pools:
            new_prompt = self._erase_prompt if side == "erase" else self._retain_prompt
            prompts = [new_prompt() for _ in range(self.config.pool)]
            self._pools[side] = Pool.spread(self._grid, prompts, self._micro_batch)
        return self._pools[side]

    def _rows(self, erase_prompt: int, retain_prompt: int) -> list[Row]:
        corefs = self._sample(self._corefs, self.config.corefs_per_step, erase_prompt)
        retains = self._sample(self._retains, self.config.retains_per_step, retain_prompt)
        return make_rows(self._prompt, self._target, corefs, retains, self.config.alpha, self.config.beta)

    def _sample(self, related: list[tuple[int, float]], n: int, own: int) -> list[tuple[int, float]]:
        """min(n, len) of `related` without replacement, the one that x_t was drawn for among them."""
        order = torch.randperm(len(related), generator=self.generator).tolist()
        picked = [related[i] for i in order]
        if self.config.x_t_prompts == "mix":
            picked.sort(key=lambda item: item[0] != own)
        return picked[:n]

    # ---- state ----------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain values that `load_state` continues from exactly."""
        tensors = {f"adapter.{k}": v for k, v in self.adapter.state().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
        tensors["generator"] = self.generator.get_state()
        values: dict[str, Any] = {"step": self.step_count, "micro_batch": self._micro_batch, "pools": {}}
        for side, pool in self._pools.items():
            tensors[f"pool.{side}"] = torch.cat([t.x_t for t in pool.trajectories])
            places = [[t.prompt, t.index] for t in pool.trajectories]
            values["pools"][side] = {"turn": pool.turn, "places": places}
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
        for side, saved in values["pools"].items():
            latents = tensors[f"pool.{side}"].to(self.backbone.device).split(1)
            trajectories = [Trajectory(p, i, x) for (p, i), x in zip(saved["places"], latents, strict=True)]
            self._pools[side] = Pool(self._grid, trajectories, saved["turn"])


def _told_timesteps(grid: Grid, config: ErasureConfig) -> list[int]:
    """The timestep told to the network at each position: the latent's own, unless the official offset is asked for."""
    if not config.compat_timesteps:
        return grid.timesteps
    fine = grid.training_timesteps()
    return [fine[int(k * len(fine) / config.ddim_steps)] for k in range(config.ddim_steps)]
