"""LoRAs of one base model as one: its change is the sum of theirs, without training.

    sum_i (alpha_i / r_i) up_i down_i = [s_1 up_1, s_2 up_2, ...] [down_1; down_2; ...]  with s_i = alpha_i / r_i

The ranks stand side by side. A layer that one of them does not change gets zeros in their place, as all layers of a
file have one rank.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from crce.concepts import write_sets
from crce.concepts.concept_set import fold
from crce.config import ErasureConfig
from crce.errors import RunError
from crce.files import read_tensors
from crce.training.run_folder import Erasure, claim_folder, file_hash, now, write_adapter, write_run


CONFIG = "lora_adapter_metadata"


def combine(runs: Sequence[str | Path], out: str | Path | None = None) -> Erasure:
    """A run that changes a model as several finished runs do together; `out` None is the next free folder.

    Every other command takes it like the run of one erasure. Its settings are those of the first run.

    Raises:
        RunError: there are fewer than two runs, or they can't be added up: they are of different models, are no LoRAs,
            or erase the same target; `out` is taken or can't be written.
        ConfigError: their ranks add up to more than the settings allow.
    """
    erasures = [Erasure.load(run) for run in runs]
    if len(erasures) < 2:
        raise RunError(f"One run can't be combined with nothing. Give two runs or more, not {len(erasures)}.")
    sets = tuple(concepts for erasure in erasures for concepts in erasure.sets)
    targets = [fold(concepts.target) for concepts in sets]
    if twice := next((c.target for i, c in enumerate(sets) if targets[i] in targets[:i]), None):
        raise RunError(f"'{twice}' is erased by two of these runs, whose sum would change it twice. Leave one out.")
    first, states, configs = erasures[0], [], []
    for erasure in erasures:
        if (erasure.info["revision"] or erasure.info["model"]) != (first.info["revision"] or first.info["model"]):
            raise RunError(f"Runs of one base model can be combined, but {erasure.folder} is of another.")
        try:
            state, how = read_tensors(erasure.adapter)
            config = json.loads(how.get(CONFIG, "{}"))
        except (OSError, ValueError) as error:
            raise RunError(f"The adapter {erasure.adapter} is damaged: {error}. Erase that run again.") from error
        if not config or erasure.config.text_tokens_only != first.config.text_tokens_only:
            raise RunError(
                f"{erasure.folder} changes the model in a way that can't be added up exactly. Combine LoRAs, or erase "
                "together: crce erase CONCEPT CONCEPT"
            )
        states.append(state)
        configs.append(config)
    names = list(dict.fromkeys(name for state in states for name in state))
    component = names[0].partition(".")[0]
    ranks = [config[f"{component}.r"] for config in configs]
    combined = {}
    for name in names:
        axis, like = (0, 1)[".lora_B." in name], next(state[name] for state in states if name in state)
        parts = []
        for state, config, rank in zip(states, configs, ranks, strict=True):
            shape = [rank if i == axis else size for i, size in enumerate(like.shape)]
            scale = config[f"{component}.lora_alpha"] / rank if axis else 1.0
            parts.append(state[name] * scale if name in state else torch.zeros(shape))
        combined[name] = torch.cat(parts, axis)
    rank, modules = sum(ranks), {m for config in configs for m in config[f"{component}.target_modules"]}
    own = {"r": rank, "lora_alpha": rank, "target_modules": sorted(modules)}
    config = configs[0] | {f"{component}.{name}": value for name, value in own.items()}
    settings = ErasureConfig(**first.info["config"] | {"rank": rank, "lora_alpha": float(rank)})
    info = first.info | {"config": settings.model_dump(mode="json"), "targets": [c.target for c in sets]}
    info |= {"combined": [{"run": str(e.folder.resolve()), "adapter": file_hash(e.adapter)} for e in erasures]}
    info |= {"start_from": None, "started": now(), "finished": now()}
    with claim_folder(out, sets) as folder:
        write_sets(folder / "concepts.yaml", sets)
        write_adapter(folder, combined, how | {CONFIG: json.dumps(config)}, sets, info)
        write_run(folder, info)
        return Erasure(folder, sets, settings, info)
