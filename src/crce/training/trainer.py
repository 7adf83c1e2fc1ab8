"""The optimizer step: one batch of the teacher, one batch of the student, over target, corefs and retains."""

from __future__ import annotations

import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed

from crce.backbones import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.text_side import free_encoders
from crce.concepts import ConceptSet
from crce.config import ErasureConfig
from crce.methods.objective import Row, crce_loss, role_terms, row_errors, row_targets, without_conflict
from crce.methods.table import load_method
from crce.training import processes
from crce.training.adapters import new_adapter, refuse_unlike
from crce.training.events import Step
from crce.training.hardening import find_states
from crce.training.prompts import make_table, near_vocabulary
from crce.training.step_sampler import Predictor, StepBatch, StepSampler


logger = logging.getLogger(__name__)


class Trainer:
    """Erases concept sets from a backbone, step by step; each step learns from one of the sets.

    The `adapter` is trained by Adam; `generator`, on the CPU, is behind every random choice. With a `share`, see
    `processes`, it computes these rows of a step, and other processes the rest.
    """

    def __init__(self, backbone: Backbone, sets: Sequence[ConceptSet], config: ErasureConfig) -> None:
        self.backbone = backbone
        self.config = config
        self.share = processes.share()
        self._method = load_method(config.method)
        own = not config.crce or self._method.vocabulary_stays
        vocabulary = near_vocabulary(backbone, sets, self._method.vocabulary) if own else []
        # a method that answers the concept like what it becomes would answer that like itself
        parted = self._method.trajectories == "concept"
        self.table = make_table(
            backbone, sets, crce=config.crce, vocabulary=vocabulary, scenes=config.scenes, parted=parted
        )
        self._phrases = len(self.table.texts)
        free_encoders(backbone)
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

    def step(self) -> Step:
        """Sample a batch and make one optimizer step; where the settings say so, look for more corefs before it."""
        rounds, steps = self.config.harden, self.config.steps
        if self.step_count in [steps * (i + 1) // (rounds + 1) for i in range(rounds)]:
            for which, prompts in enumerate(self.table.sets):
                found = find_states(self.sampler, prompts, self.generator)
                self.table.add_corefs(which, found)
                if self.share is not None:
                    processes.send((which, found))
        batch = self.sampler.batch()
        if self.share is not None:
            processes.send((batch, self.generator.get_state()))
        return self.learn(batch)

    def learn(self, batch: StepBatch) -> Step:
        """Make one optimizer step."""
        self.optimizer.zero_grad(set_to_none=True)
        errors = self.backward(batch)
        # The rate is a function of the step alone, so that a resumed run takes the same ones.
        falling = (1 + math.cos(math.pi * self.step_count / self.config.steps)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * (1 if self.config.schedule == "constant" else falling)
        self.optimizer.step()
        self.step_count += 1
        terms = role_terms(batch.rows, errors)
        return Step(self.step_count, sum(terms.values()), terms, batch.timestep)

    def backward(self, batch: StepBatch) -> list[float]:
        """Accumulate the gradient of the objective, and return each row's error, without its weight.

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
        mine = list(range(len(batch.rows)))[self.share or slice(None)]
        eps_target, eps_sources = self.targets(batch, cond, mine)
        weights = torch.tensor([row.weight for row in batch.rows], device=batch.x_t.device)
        errors = torch.zeros(len(batch.rows), dtype=torch.float64)
        apart = self.config.gradient_surgery and any(row.role == "retain" for row in batch.rows)
        trained = self.adapter.parameters()
        gradients: list[list[torch.Tensor]] = []
        for side in (False, True) if apart else (None,):
            group = [k for k, i in enumerate(mine) if side in (None, batch.rows[i].role == "retain")]
            for part in self.predictor.parts(len(group)):
                places = group[part]
                own = [mine[k] for k in places]
                rows = [batch.rows[i] for i in own]
                eps_student = self.backbone.predict(batch.x_t[own], batch.t[own], self.student_states(rows, cond))
                given = (eps_student, eps_target[places], eps_sources[places])
                loss, found = crce_loss(*given[:2], weights[own], row_errors(self._method, rows, given, self.config))
                loss.backward()
                errors[own] = found.detach().double().cpu()
            if apart or self.share is not None:
                gradients.append([p.grad if p.grad is not None else torch.zeros_like(p) for p in trained])
                self.optimizer.zero_grad(set_to_none=True)
        if self.share is not None:
            for tensor in (errors, *itertools.chain.from_iterable(gradients)):
                distributed.all_reduce(tensor)
        if gradients:
            total = without_conflict(*gradients) if apart else gradients[0]
            for parameter, gradient in zip(trained, total, strict=True):
                parameter.grad = gradient
        return errors.tolist()

    def student_states(self, rows: Sequence[Row[int]], cond: Conditioning) -> Conditioning:
        """The prompts that the student is given for rows, out of all of the step's prompts."""
        return cond[[row.prompt for row in rows]]

    @torch.no_grad()
    def targets(self, batch: StepBatch, cond: Conditioning, own: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the student should predict for rows of a batch, and what the teacher does for their sources.

        Each has shape (R, C, h, w); `cond` are the prompts of the table, then those of the batch beyond it, and `own`
        the R rows' places in the batch.
        """
        rows = [batch.rows[i] for i in own]
        # In addition to the rows' sources: the empty prompt or scene, and the base where that is something else.
        prompts, x_t, t = batch.prompts, batch.x_t, batch.t
        others = [prompts.null] if prompts.base == prompts.null else [prompts.null, prompts.base]
        each = len(batch.rows) // batch.places  # rows of one x_t, the target's first
        x_erase, t_erase = x_t[::each], t[::each]
        x_all = torch.cat([x_erase] * len(others) + [x_t[list(own)]])
        t_all = torch.cat([t_erase] * len(others) + [t[list(own)]])
        asked = [i for i in others for _ in range(batch.places)] + [row.source for row in rows]
        *eps_others, eps = self.predictor.teacher(x_all, t_all, cond[asked]).tensor_split(
            [batch.places * (i + 1) for i in range(len(others))]
        )
        eps_null, eps_base = eps_others[0], eps_others[-1]
        if self._method.base_from == "student":
            eps_base = self.predictor.student(x_erase, t_erase, cond[[prompts.base] * batch.places])
        eps_null, eps_base = (at.repeat_interleave(each, 0)[list(own)] for at in (eps_null, eps_base))
        return row_targets(self._method, rows, eps_base, eps_null, eps, self.config), eps

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
        values = {"step": self.step_count, "micro_batch": self.predictor.micro_batch, "sources": places}
        if len(self.table.texts) > self._phrases:
            found = vars(self.table.cond[self._phrases :])
            tensors |= {f"found.{name}": part for name, part in found.items() if part is not None}
            owners = {i: which for which, own in enumerate(self.table.sets) for i, _ in own.corefs}
            values["found"] = [owners[i] for i in range(self._phrases, len(self.table.texts))]
        return tensors, values

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        parts: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.adapter.load(parts["adapter"])
        for row, which in enumerate(values.get("found", [])):
            found = {name: part[row : row + 1].to(self.backbone.device) for name, part in parts["found"].items()}
            self.table.add_corefs(which, Conditioning(**found))
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
