"""Where attacks and replays take place: the erasure on its model, a judge that fits, and learned words on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.attacks.victim import Victim
from crce.errors import ConfigError, RunError
from crce.evaluate.groups import EVERYDAY
from crce.files import read_tensors, slug, write_tensors
from crce.judges import load_judge
from crce.judges.judge import OpenJudge
from crce.judges.table import own_judge
from crce.sampling.image_cache import FOLDER as PICTURES
from crce.training import Erasure, apply_adapter


if TYPE_CHECKING:
    import torch

    from crce.attacks.protocol import AdversarialPrompt, Prompt
    from crce.attacks.query_log import Journal
    from crce.backbones import Backbone
    from crce.judges import Judge


def judged_words(
    victim: Victim,
    prompt: Prompt,
    text: str | None = None,
    *,
    base: bool = False,
    word: torch.Tensor | None = None,
    state: str = "",
) -> list[str | None]:
    """The judge's word for every tested picture."""
    seeds, text = victim.test_seeds, prompt.text if text is None else text
    if base:
        with victim.original():
            (sights,) = victim.look([text], seeds, prompt.expected)
    else:
        (sights,) = victim.look([text], seeds, prompt.expected, word, state)
    return [sight.word for sight in sights]


@contextmanager
def put_on(
    backbone: Backbone, erasure: Erasure, judge: Judge, journal: Journal, head: dict[str, Any], batch: int
) -> Iterator[Victim]:
    """The erased model, for as long as the context lasts."""
    adapter = apply_adapter(backbone, erasure.adapter)
    try:
        drawn = head["pictures"]
        yield Victim(
            backbone,
            adapter,
            judge,
            journal,
            seed=head["seed"],
            search_seeds=drawn["search_seeds"],
            test_seeds=drawn["test_seeds"],
            steps=drawn["steps"],
            guidance=drawn["guidance"],
            batch=batch,
        )
    finally:
        adapter.close()


def write_word(folder: Path, name: str, answer: AdversarialPrompt) -> str | None:
    """Save learned embeddings for diffusers; the file name, or None where none were learned."""
    word = answer.found.word
    if word is None:
        return None
    file = f"{name}-{slug(answer.prompt.text)}.safetensors"
    write_tensors(folder / file, {f"<{slug(answer.prompt.text)}>": word}, {"format": "pt"})
    return file


def read_word(path: Path) -> torch.Tensor:
    """What `write_word` saved, shape (K, W).

    Raises:
        RunError: the file can't be read.
    """
    try:
        (word,) = read_tensors(path)[0].values()
    except (OSError, ValueError) as error:
        raise RunError(f"Cannot read the learned word {path}: {error}. Attack again.") from error
    return word


def choose_judge(judge: str | Judge, erasure: Erasure, device: str) -> Judge:
    """The judge, told what the run is about where it has no classes of its own.

    Raises:
        ConfigError: there is no such judge, or none knows the model.
    """
    model = erasure.info["model"]
    if judge == "auto" and model != "demo":
        raise ConfigError(
            f"No judge is known for {model!r}, and without one nobody says whether an attack succeeds. "
            "Name one with --judge, such as clip:FOLDER."
        )
    if judge == "auto":
        judge = own_judge(c.kind for c in erasure.sets)
    if isinstance(judge, str):
        judge = load_judge(judge, device)
    if isinstance(judge, OpenJudge):  # everyday things are told too, so that what is neither has a name
        return judge.about(erasure.sets, erasure.folder / PICTURES, unrelated=EVERYDAY)
    return judge


def describe(judge: Judge) -> dict[str, Any]:
    """A judge, as the results name it."""
    described = {"name": judge.name, "version": judge.version, "hash": judge.hash, "threshold": judge.threshold}
    return {**described, "classes": len(judge.classes)}
