"""The optimizer step: one batch of the teacher, one batch of the student, over target, corefs and retains."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from crce.backbones import Backbone
from crce.backbones.conditioning import Conditioning
from crce.concepts import ConceptSet
from crce.config import ErasureConfig
from crce.methods.objective import Row, crce_loss, role_terms, row_targets
from crce.methods.table import load_method
from crce.training.adapters import new_adapter, refuse_unlike
from crce.training.prompts import make_table, near_vocabulary
from crce.training.step_sampler import Predictor, StepBatch, StepSampler


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """Losses of one step. `terms` are the objective's sums over target, corefs and retains; they add up to `loss`."""

    loss: float
    terms: dict[str, float]
    timestep: float


class Trainer:
    """Erases concept sets from a backbone, step by step; each step learns from one of the sets.

    The `adapter` is trained by Adam; `generator`, on the CPU, is behind every random choice.
    """

    def __init__(self, backbone: Backbone, sets: Sequence[ConceptSet], config: ErasureConfig) -> None:
        self.backbone = backbone
        self.config = config
        self._method = load_method(config.method)
        own = not config.crce or self._method.vocabulary_stays
        vocabulary = near_vocabulary(backbone, sets, self._method.vocabulary) if own else []
        # a method that answers the concept like what it becomes would answer that like itself
        parted = self._method.trajectories == "concept"
        self.table = make_table(
            backbone, sets, crce=config.crce, vocabulary=vocabulary, scenes=config.scenes, parted=parted
        )
        backbone.begin_training()
        self.adapter = new_adapter(backbone, config)
        if config.gradient_checkpointing:
            # Diffusers recomputes wherever gradients are asked for, so that evaluation mode, without dropout, stays.
            backbone.network.enable_gradient_checkpointing()
        self.optimizer = torch.optim.Adam(self.adapter.parameters(), lr=config.learning_rate)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step_count = 0
        self.predictor = Predictor(backbone, self.adapter, config.micro_batch)
        self.sampler = StepSampler(self.table, self._method, config, self.predictor, self.generator)

    def step(self) -> StepResult:
        """Sample a batch and make one optimizer step."""
        batch = self.sampler.batch()
        self.optimizer.zero_grad(set_to_none=True)
        errors = self.backward(batch)
        # The rate is a function of the step alone, so that a resumed run takes the same ones.
        falling = (1 + math.cos(math.pi * self.step_count / self.config.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * (1 if self.config.schedule == "constant" else falling)
        self.optimizer.step()
        self.step_count += 1
        terms = role_terms(batch.rows, errors)
        return StepResult(sum(terms.values()), terms, batch.timestep)

    def backward(self, batch: StepBatch) -> list[float]:
        """Accumulate the gradient of the objective, and return each row's mean squared error, without its weight.

        Where memory runs out, it continues with half as many prompts per forward.
        """
        while True:
            try:
                return self._backward(batch)
            except torch.OutOfMemoryError:
                size = self.predictor.micro_batch or len(batch.rows)
                if size == 1:
                    raise
                self.predictor.micro_batch = size // 2
                self.optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                logger.warning("Out of memory at %d prompts per forward; continuing with %d.", size, size // 2)

    def _backward(self, batch: StepBatch) -> list[float]:
        cond = self.table.cond if batch.extra is None else Conditioning.cat([self.table.cond, batch.extra])
        eps_target = self.targets(batch, cond)
        weights = torch.tensor([row.weight for row in batch.rows], device=batch.x_t.device)
        errors: list[float] = []
        for part in self.predictor.parts(len(batch.rows)):
            states = self.student_states(batch.rows[part], cond)
            eps_student = self.backbone.predict(batch.x_t[part], batch.t[part], states)
            loss, part_errors = crce_loss(eps_student, eps_target[part], weights[part])
            loss.backward()
            errors += part_errors.tolist()
        return errors

    def student_states(self, rows: Sequence[Row[int]], cond: Conditioning) -> Conditioning:
        """The prompts that the student is given for rows, out of all of the step's prompts."""
        return cond[[row.prompt for row in rows]]

    @torch.no_grad()
    def targets(self, batch: StepBatch, cond: Conditioning) -> torch.Tensor:
        """What the student should predict for the rows of a batch, shape (R, C, h, w).

        `cond` are the prompts of the table, then those of the batch beyond it.
        """
        # In addition to the rows' sources: the empty prompt or scene, and the base where that is something else.
        prompts, x_t, t = batch.prompts, batch.x_t, batch.t
        others = [prompts.null] if prompts.base == prompts.null else [prompts.null, prompts.base]
        n = len(others)
        x_all, t_all = torch.cat([x_t[:1].expand(n, -1, -1, -1), x_t]), torch.cat([t[:1].expand(n), t])
        eps = self.predictor.teacher(x_all, t_all, cond[others + [row.source for row in batch.rows]])
        eps_null, eps_base = eps[:1], eps[n - 1 : n]
        if self._method.base_from == "student":
            eps_base = self.predictor.student(x_t[:1], t[:1], cond[[prompts.base]])
        return row_targets(self._method, batch.rows, eps_base, eps_null, eps[n:], self.config)

    def close(self) -> None:
        """Restore the backbone."""
        self.adapter.close()
        if self.config.gradient_checkpointing:
            self.backbone.network.disable_gradient_checkpointing()

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain values that `load_state` continues from exactly."""
        sources, places = self.sampler.state()
        tensors = {f"adapter.{k}": v for k, v in self.adapter.state().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
        tensors |= {f"source.{name}": tensor for name, tensor in sources.items()}
        tensors["generator"] = self.generator.get_state()
        return tensors, {"step": self.step_count, "micro_batch": self.predictor.micro_batch, "sources": places}

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        parts: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.adapter.load(parts["adapter"])
        moments: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
        for name, tensor in parts["optimizer"].items():
            i, _, key = name.partition(".")
            moments[int(i)][key] = tensor
        for index, own in moments.items():
            parameter = self.adapter.parameters()[index]
            refuse_unlike(own, {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter})
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.generator.set_state(tensors["generator"])
        self.step_count = values["step"]
        self.predictor.micro_batch = int(values["micro_batch"])
        self.sampler.load_state(parts["source"], values["sources"])
