"""A register of deletions: a run whose targets are deleted and taken back one by one, with who asked for it and why.

register.json   beside the files of a run: the model, the settings and every deletion and undo, oldest first
sums/           the token states of each concept set, and the sums over all of them; made again where it is gone

The weights are solved for from the base model. Sums are whole numbers, multiples of 1 / SCALE, which have no order:
the weights depend on what is deleted now and on nothing that came before, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field

from crce.backbones import Backbone, load_backbone
from crce.backbones.scopes import state_layers
from crce.backbones.text_side import text_side_parts
from crce.concepts import ConceptSet, dump_concepts, write_sets
from crce.concepts.concept_set import fold
from crce.config import ErasureConfig, load_config
from crce.errors import ConceptError, ConfigError, RunError
from crce.files import check_writable, locked, read_json, read_tensors, write_json, write_tensors
from crce.methods.closed_form import products, solution, stacked
from crce.methods.table import load_method, refuse_unsupported
from crce.training.adapters import Weights
from crce.training.base_model import load_recorded
from crce.training.prompts import everyday_words, not_erased
from crce.training.run_folder import Erasure, file_hash, new_info, now, refuse_taken, write_adapter, write_run
from crce.training.state_rows import EVERYDAY, closed_form_rows


REGISTER = "register.json"
SCALE, LARGEST = 2.0**30, 2**61  # the largest sum times SCALE, in 64 bits
STACKED, KINDS = ("keys", "values", "weights"), ("cross", "gram")
CHUNK = 10  # everyday words that are encoded again where one of them is erased


class RegisterEvent(BaseModel):
    """A deletion of a concept set or its undo; `weights` is the hash of the adapter after it, None: there is none."""

    action: Literal["delete", "undo"]
    target: str
    concepts: ConceptSet | None = None
    by: str = ""
    reason: str = ""
    at: str = Field(default_factory=now)
    concepts_sha256: str | None = None
    weights: str | None = None


class Register(BaseModel):
    """The content of register.json."""

    model: str
    revision: str | None
    dtype: str
    config: dict[str, Any]
    events: list[RegisterEvent] = []

    @classmethod
    def read(cls, folder: Path) -> Register:
        """Read a register, or raise a RunError where there is none or it is damaged."""
        return cls(**read_json(folder / REGISTER, cls, "Begin one: crce delete CONCEPT --register FOLDER."))

    def deleted(self) -> dict[str, RegisterEvent]:
        """By folded target the last deletion of what is deleted now, in alphabetical order."""
        last = {fold(event.target): event for event in self.events}
        return {name: last[name] for name in sorted(last) if last[name].action == "delete"}


def change_register(
    folder: Path,
    events: Sequence[RegisterEvent],
    *,
    model: str = "demo",
    config: ErasureConfig | None = None,
    device: str = "auto",
    backbone: Backbone | None = None,
) -> Erasure | None:
    """Delete concept sets, or take deletions back; a call that fails changes nothing.

    A new register is begun with `model` and `config`, UCE by default; another has its own. Returns the run of all that
    is deleted now, or None if that is nothing.

    Raises:
        ConceptError: a target is deleted already, or was not deleted.
        ConfigError: the method needs more than sums of rows, or they are too large or can't be solved with.
        ModelError: the model can't be loaded.
        RunError: a file can't be read or written, the folder holds another run, or the model has changed.
    """
    check_writable(folder, folder=True)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=-1):
        if (folder / REGISTER).exists():
            register = Register.read(folder)
            config = ErasureConfig.from_record(register.config)
        else:
            refuse_taken(folder)
            config = config or load_config("uce", model=model)
            if not getattr(load_method(config.method), "additive", False):
                raise ConfigError(
                    f"{config.method} does not solve from sums of rows alone, as one concept after another needs it. "
                    "Use uce or mace, or erase all again: crce erase CONCEPT --start-from RUN."
                )
            backbone = backbone or load_backbone(model, device=device, parts=text_side_parts)
            refuse_unsupported(config.method, type(backbone.pipe).__name__)
            dtype, settings = str(backbone.dtype).removeprefix("torch."), config.model_dump(mode="json")
            register = Register(model=backbone.model, revision=backbone.revision, dtype=dtype, config=settings)
        known = register.deleted()
        for event in events:
            before = known.get(fold(event.target))
            if before and event.action == "delete":
                raise ConceptError(f"'{event.target}' was deleted on {before.at}. First: crce delete --undo.")
            if not before and event.action == "undo":
                raise ConceptError(f"'{event.target}' is not deleted. Deleted are: {', '.join(known) or 'none'}.")
            event.concepts_sha256 = _hash(dump_concepts(event.concepts)) if event.concepts else None
        backbone = backbone or load_recorded(register.model_dump(), device=device, parts=text_side_parts)
        if backbone.revision != register.revision:
            raise RunError(f"The model {register.model!r} has changed since {folder} began. Bring it back.")
        register.events += events
        erasure = _solve(folder, register, config, backbone)
        for event in events:
            event.weights = file_hash(erasure.adapter) if erasure else None
        write_json(folder / REGISTER, register.model_dump(mode="json"))  # last: what was killed before is repeated
        return erasure


def _solve(folder: Path, register: Register, config: Any, backbone: Backbone) -> Erasure | None:
    """Write the weights without what is deleted now as a finished run; no run if that is nothing."""
    sets = tuple(event.concepts for event in register.deleted().values() if event.concepts)
    if not sets:
        for name in ("run.json", "concepts.yaml", "adapter.safetensors"):
            (folder / name).unlink(missing_ok=True)
        return None
    total, layers = _total(folder / "sums", sets, config, backbone), state_layers(backbone.network, type(backbone))
    sources = {name.rpartition(".")[0] for name in total}
    adapter = Weights(backbone, [path for path, source in layers.items() if source in sources])
    try:
        for source in sources:
            own = {path: w for path, w in adapter.base_weights().items() if layers[path] == source}
            cross, gram = (total[f"{source}.{kind}"].double() / SCALE for kind in KINDS)
            adapter.set_weights(solution(own, cross, gram, config.ridge))
        info = new_info(sets, config, backbone, None, 0.0)
        info |= {"status": "finished", "steps_done": 1, "finished": now()}
        write_adapter(folder, adapter, sets, info)
    except torch.linalg.LinAlgError as error:
        raise ConfigError(f"{config.method} can't solve for the weights. Begin with a larger ridge.") from error
    finally:
        adapter.close()
    write_sets(folder / "concepts.yaml", sets)
    write_run(folder, info)
    return Erasure(folder, sets, config, info)


def _total(folder: Path, sets: Sequence[ConceptSet], config: Any, backbone: Backbone) -> dict[str, torch.Tensor]:
    """The sums over all rows as whole numbers: those in the folder, with the difference to what they are of.

    A retain that another set erases is left out, as in any erasure of several concepts: its set then has other rows.
    """
    gone = {fold(t) for c in sets for t in (c.target, *(r.text for r in c.train_corefs if config.crce))}
    reduced = [replace(c, retains=tuple(r for r in c.retains if fold(r.text) not in gone)) for c in sets]
    words = everyday_words(backbone, (), EVERYDAY)
    chunks = [not_erased(words[i : i + CHUNK], sets) for i in range(0, len(words), CHUNK)]
    parts: dict[str, tuple[Sequence[ConceptSet], Sequence[str]]]
    parts = {_hash(dump_concepts(c)): ([c], ()) for c in reduced} | {_hash(" ".join(own)): ((), own) for own in chunks}
    # Other kernels may give sums other last bits, so that they can't be taken off again.
    kernels = f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"
    stored, total, before = folder / f"{_hash(kernels)}.safetensors", {}, []
    with suppress(OSError):  # there is none, or it is damaged
        total, metadata = read_tensors(stored)
        before = json.loads(metadata["names"])
    try:
        for name in {*before} ^ {*parts}:
            path, (own, chunk) = folder / f"{name}.safetensors", parts.get(name, ((), ()))
            if not path.exists():
                each = config.model_copy(update={"everyday": config.everyday * len(chunk) / EVERYDAY})
                made = closed_form_rows(backbone, own, load_method(config.method), each, chunk)
                rows = {source: (*r.erase, *r.keep, *r.everyday) for source, r in made.items()}
                stacks = {source: zip(STACKED, stacked(r), strict=True) for source, r in rows.items() if r}
                write_tensors(path, {f"{s}.{n}": t.float() for s, stack in stacks.items() for n, t in stack}, {})
            tensors = read_tensors(path)[0]
            for source in {key.rpartition(".")[0] for key in tensors}:
                both = products(*(tensors[f"{source}.{part}"].double() for part in STACKED))
                for kind, part in zip(KINDS, both, strict=True):
                    whole = part.mul_(SCALE).round_().clamp_(-LARGEST, LARGEST).long()
                    entry = total.setdefault(f"{source}.{kind}", torch.zeros_like(whole))
                    entry += whole if name in parts else -whole
                    if entry.abs().max() >= LARGEST:
                        raise ConfigError("The sums of all rows are too large. Begin with smaller weights.")
    except OSError as error:
        raise RunError(f"{folder} is damaged: {error}. Delete it; what is in it is made again.") from error
    write_tensors(stored, total, {"names": json.dumps(sorted(parts))})
    return total


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
