"""A register of deletions: a run whose targets are deleted and taken back one by one, with who asked for it and why.

register.json   beside the files of a run: the model, the settings and every deletion and undo, oldest first
sums/           the token states of each concept set, and the sums over all of them; made again where it is gone

Solved for from the base model, with sums of whole numbers, which have no order: only what is deleted now counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field

from crce import __version__
from crce.backbones import Backbone
from crce.backbones.scopes import state_layers
from crce.concepts import ConceptSet, dump_concepts, write_sets
from crce.concepts.concept_set import fold
from crce.config import ErasureConfig
from crce.errors import ConceptError, ConfigError, RunError
from crce.files import check_writable, locked, read_json, read_tensors, text_hash, write_json, write_tensors
from crce.methods.closed_form import solution, stacked, sums
from crce.methods.objective import Row
from crce.methods.table import edits_states, load_method, refuse_unsupported
from crce.training.adapters import Weights
from crce.training.prompts import everyday_words, not_erased
from crce.training.run_folder import Erasure, file_hash, new_info, now, refuse_taken, write_adapter, write_run
from crce.training.state_rows import EVERYDAY, closed_form_rows


REGISTER = "register.json"
SCALE, LARGEST = 2.0**30, 2**61  # the largest sum times SCALE, in 64 bits
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

    run: dict[str, Any]  # the record of its first run, with model and settings
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
    folder: Path, events: Sequence[RegisterEvent], backbone: Backbone, config: ErasureConfig
) -> Erasure | None:
    """Delete concept sets, or take deletions back, and solve for the weights; a call that fails changes nothing.

    A new register is begun with `config` without its state guidance, another has its own. The backbone is returned
    unchanged. Returns the run of all that is deleted now, or None if that is nothing.

    Raises:
        ConceptError: a target is deleted already, or was not deleted.
        ConfigError: the method needs more than sums of rows, or they are too large or can't be solved with.
        RunError: a file can't be read or written, the folder holds another run, or the model is another.
    """
    check_writable(folder, folder=True)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=-1):
        if (folder / REGISTER).exists():
            register = Register.read(folder)
        else:
            refuse_taken(folder)
            if "state_guidance" in type(config).model_fields:  # a hundred times over it would move everything
                config = config.model_copy(update={"state_guidance": 0.0})
            register = Register(run=new_info((), config, backbone, None, 0.0))
        if backbone.revision != register.run["revision"]:
            raise RunError(f"{folder} deletes from {register.run['model']!r} at {register.run['revision']}. Use that.")
        for event in events:
            before = register.deleted().get(fold(event.target))
            if bool(before) == (event.action == "delete"):
                state = f"was deleted on {before.at}" if before else "is not deleted"
                raise ConceptError(f"'{event.target}' {state}. See {folder / REGISTER}.")
            event.concepts_sha256 = text_hash(dump_concepts(event.concepts))[:32] if event.concepts else None
            register.events.append(event)
        erasure = _solve(folder, register, ErasureConfig(**register.run["config"]), backbone)
        for event in events:
            event.weights = file_hash(erasure.adapter) if erasure else None
        write_json(folder / REGISTER, register.model_dump(mode="json"))  # last: what was killed before is repeated
        return erasure


def _solve(folder: Path, register: Register, config: Any, backbone: Backbone) -> Erasure | None:
    """Write the weights without what is deleted now as a finished run; no run if that is nothing."""
    if not getattr(load_method(config.method), "additive", False) or not edits_states(config):
        own = f"{config.method} with deep" if getattr(config, "deep", False) else config.method
        raise ConfigError(f"{own} can't delete concepts one by one, as uce and mace can. Use one of these.")
    refuse_unsupported(config.method, type(backbone.pipe).__name__)
    sets = tuple(event.concepts for event in register.deleted().values() if event.concepts)
    stale = [folder / name for name in ("report.json", "report.html")]
    if not sets:
        for path in (*stale, *(folder / name for name in ("run.json", "concepts.yaml", "adapter.safetensors"))):
            path.unlink(missing_ok=True)
        return None
    total, layers = _total(folder / "sums", sets, config, backbone), state_layers(backbone.network, type(backbone))
    adapter = Weights(backbone, [path for path, source in layers.items() if source in total])
    try:
        for source, (cross, gram) in total.items():
            own = {path: w for path, w in adapter.base_weights().items() if layers[path] == source}
            adapter.set_weights(solution(own, cross.double() / SCALE, gram.double() / SCALE, config.ridge))
        for path in stale:  # only now, as a call that fails changes nothing
            path.unlink(missing_ok=True)
        info = new_info(sets, config, backbone, None, 0.0) | {"status": "finished", "steps_done": 1, "finished": now()}
        write_adapter(folder, adapter.state(), adapter.metadata(), sets, info)
    except torch.linalg.LinAlgError as error:
        raise ConfigError(f"{config.method} can't solve for the weights. Begin with a larger ridge.") from error
    finally:
        adapter.close()
    write_sets(folder / "concepts.yaml", sets)
    write_run(folder, info)
    return Erasure(folder, sets, config, info)


def _total(folder: Path, sets: Sequence[ConceptSet], config: Any, backbone: Backbone) -> dict[str, torch.Tensor]:
    """The sums over all rows as whole numbers: those in the folder, and the difference to what they are of."""
    # A retain that another set erases is left out, as in any erasure of several concepts: its set has other rows then.
    gone = {fold(t) for c in sets for t in (c.target, *(r.text for r in c.train_corefs if config.crce))}
    reduced = [replace(c, retains=tuple(r for r in c.retains if fold(r.text) not in gone)) for c in sets]
    words = everyday_words(backbone, (), EVERYDAY)
    chunks = [not_erased(words[i : i + CHUNK], sets) for i in range(0, len(words), CHUNK)]
    parts: dict[str, Any] = {text_hash(dump_concepts(c))[:32]: ([c], ()) for c in reduced}
    parts |= {text_hash(" ".join(chunk))[:32]: ((), chunk) for chunk in chunks}
    # Other code and kernels may give sums other last bits, so that they can't be taken off again.
    versions = f"{__version__} {torch.__version__}"
    kernels = f"{versions} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"
    stored, before = folder / f"{text_hash(kernels)[:32]}.safetensors", []
    total: dict[str, torch.Tensor] = {}
    with suppress(OSError):  # there is none, or it is damaged
        total, metadata = read_tensors(stored)
        before = json.loads(metadata["names"])
    try:
        for name in {*before} ^ {*parts}:
            path = folder / f"{name}.safetensors"
            if name in parts and not path.exists():
                own, chunk = parts[name]
                each = config.model_copy(update={"everyday": config.everyday * len(chunk) / EVERYDAY})
                made = closed_form_rows(backbone, own, load_method(config.method), each, chunk)
                tensors = {}
                for source, rows in made.items():
                    if every := (*rows.erase, *rows.keep, *rows.everyday):
                        keys, values, weights = stacked(every)
                        tensors[source] = (torch.stack([keys, values]) * weights.sqrt()[:, None]).float()
                write_tensors(path, tensors, {})
            for source, (keys, values) in read_tensors(path)[0].items():
                both = torch.stack(sums([Row(keys, values, 1.0, "target")])).mul_(SCALE).round_()
                whole = both.clamp_(-LARGEST, LARGEST).long()
                total[source] = total.get(source, torch.zeros_like(whole)) + (whole if name in parts else -whole)
                if total[source].abs().max() >= LARGEST:
                    raise ConfigError("The sums of all rows are too large. Begin with smaller weights.")
    except OSError as error:
        raise RunError(f"{folder} is damaged: {error}. Delete it; what is in it is made again.") from error
    write_tensors(stored, total, {"names": json.dumps(sorted(parts))})
    return total
