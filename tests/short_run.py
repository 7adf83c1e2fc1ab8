"""A short erasure of "cat" from the bundled model, which several test modules start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crce.concepts import ConceptSet, Related
from crce.evaluate import evaluate
from crce.training import erase, load_config


if TYPE_CHECKING:
    from crce.backbones.unet import UNetBackbone

SETTINGS = {"steps": 4, "pool": 1, "ddim_steps": 4, "corefs_per_step": 2, "retains_per_step": 2, "seed": 3}
SETTINGS |= {"checkpoint_every": 2}
UNRELATED = 2  # prompts of its report
SET = ConceptSet(
    "cat",
    corefs=(
        Related("kitty", 1.0),
        Related("feline", 0.6),
        *(Related(text, 1.0, held_out=True) for text in ("kitten", "pussycat", "pet cat")),
    ),
    retains=(
        Related("dog", 1.0),
        Related("lion", 0.6),
        *(Related(text, 1.0, held_out=True) for text in ("tiger", "fox", "wolf")),
    ),
)


def make(folder: Path, backbone: UNetBackbone) -> None:
    """Erase, with a report of one image for each phrase."""
    run = erase(SET, config=load_config("demo", SETTINGS), backbone=backbone, out=folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crce.evaluate.prompt_sets.concept_set.UNRELATED_PROMPTS", UNRELATED)
        evaluate(run, images_per_prompt=1, steps=4, seed=50, backbone=backbone)
