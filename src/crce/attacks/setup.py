"""Where attacks and replays take place: the erasure on its model, a judge that fits, and learned words on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from crce.attacks.victim import Victim
from crce.errors import RunError
from crce.files import read_tensors, slug, write_tensors
from crce.judges import choose_judge
from crce.judges.concept_classes import EVERYDAY
from crce.sampling.image_cache import FOLDER
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


def judge_of_run(judge: str | Judge, erasure: Erasure, device: str) -> Judge:
    """The judge of an attack, with everyday things among its classes where it has none of its own.

    Raises:
        ConfigError: there is no such judge, or none knows the model.
    """
    model, folder = erasure.info["model"], erasure.folder / FOLDER
    chosen = choose_judge(judge, model, erasure.sets, unrelated=EVERYDAY, folder=folder, device=device, required=True)
    return cast("Judge", chosen)
