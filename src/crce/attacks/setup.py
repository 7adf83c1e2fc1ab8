"""What an attack and its replay have in common: the judge, the erased model, and learned embeddings on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from crce.attacks.query_log import QueryLog
from crce.attacks.victim import Victim
from crce.backbones import Backbone
from crce.errors import RunError
from crce.files import read_tensors, slug, write_tensors
from crce.judges import Judge, choose_judge
from crce.judges.concept_classes import EVERYDAY
from crce.judges.judge import describe_judge
from crce.sampling.image_cache import FOLDER
from crce.training import Erasure, apply_adapter
from crce.training.run_folder import file_hash


def judge_of_run(judge: str | Judge, erasure: Erasure, device: str) -> Judge:
    """The judge of an attack, with everyday things among its classes where it has none of its own.

    Raises:
        ConfigError: there is no such judge, or none knows the model.
    """
    model, folder = erasure.info["model"], erasure.folder / FOLDER
    chosen = choose_judge(judge, model, erasure.sets, unrelated=EVERYDAY, folder=folder, device=device, required=True)
    return cast("Judge", chosen)


def describe_run(erasure: Erasure, judge: Judge) -> dict[str, Any]:
    """The run, its adapter and the judge, as NAME.json holds them."""
    described = describe_judge(judge, judge.threshold, class_list=False)
    return {"run": str(erasure.folder), "adapter": file_hash(erasure.adapter), "judge": described}


@contextmanager
def erased_model(
    backbone: Backbone, erasure: Erasure, judge: Judge, log: QueryLog, head: dict[str, Any], batch: int
) -> Iterator[Victim]:
    """The erased model, for as long as the context lasts, with seeds and settings as NAME.json holds them."""
    adapter = apply_adapter(backbone, erasure.adapter)
    try:
        settings = {name: head["pictures"][name] for name in ("search_seeds", "test_seeds", "steps", "guidance")}
        yield Victim(backbone, adapter, judge, log, head["seed"], **settings, batch=batch)
    finally:
        adapter.close()


def write_word(folder: Path, name: str, prompt: str, word: torch.Tensor | None) -> str | None:
    """Save the embeddings that an attack learned for a prompt, for diffusers; the file name, or None without any."""
    if word is None:
        return None
    file = f"{name}-{slug(prompt)}.safetensors"
    write_tensors(folder / file, {f"<{slug(prompt)}>": word}, {"format": "pt"})
    return file


def read_word(path: Path) -> torch.Tensor:
    """The embeddings saved by `write_word`, shape (K, W).

    Raises:
        RunError: the file can't be read.
    """
    try:
        (word,) = read_tensors(path)[0].values()
    except (OSError, ValueError) as error:
        raise RunError(f"Cannot read the learned embeddings {path}: {error}. Attack again.") from error
    return word
