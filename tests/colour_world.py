"""A little world of four colours: stripes are drawn in the colour that a phrase means, and judged by their colour."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from crce.concepts import ConceptSet, Related
from crce.evaluate.prompts import Prompt, concept_group
from crce.evaluate.scores import ScoredGroup, score_group
from crce.training import Erasure, load_config


COLOURS = {
    "cat": (200, 40, 40),
    "dog": (40, 200, 40),
    "fox": (40, 40, 200),
    "ship": (200, 200, 40),
    "tree": (0, 90, 90),
}
MEANINGS = {"kitty": "cat", "kitten": "cat", "feline": "cat", "puppy": "dog", "vixen": "fox"} | {c: c for c in COLOURS}


def stripes(colour: tuple[int, int, int], size: int = 16) -> Image.Image:
    """A picture of one colour under a white edge."""
    image = Image.new("RGB", (size, size), colour)
    image.paste((255, 255, 255), (0, 0, size, 2))
    return image


class ColourJudge:
    """Sees the class whose colour fills the picture."""

    name, version, hash, threshold = "colour", "1", "00ff00ff00ff00ff", 0.0
    classes = list(COLOURS)

    def class_of(self, text: str) -> str | None:
        return MEANINGS.get(text)

    def probs(self, images: list[Image.Image]) -> torch.Tensor:
        probs = torch.zeros(len(images), len(COLOURS))
        for i, image in enumerate(images):
            probs[i, list(COLOURS.values()).index(image.getpixel((5, 5)))] = 1
        return probs


@dataclass
class ColourModel:
    """Stands in for drawing: the base model draws what a phrase means, the erased one what `erased` says instead.

    Attributes:
        erased: for a phrase the colours of its pictures, one per seed and then again; None for a failed picture.
        base: likewise for the base model, where it should fail or err.
        calls: what was drawn, as (is it the base model, phrase, seed).
    """

    erased: dict[str, list[str | None]] = field(default_factory=dict)
    base: dict[str, list[str | None]] = field(default_factory=dict)
    is_base: bool = False
    closed: bool = False
    calls: list[tuple[bool, str, int]] = field(default_factory=list)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        self.is_base = True
        yield
        self.is_base = False

    def close(self) -> None:
        self.closed = True

    def draw(
        self, pipe: Any, prompts: list[str], seeds: list[int], *, on_drawn: Callable[[int], None], **settings: Any
    ) -> list[Image.Image | None]:
        pictures = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            self.calls.append((self.is_base, prompt, seed))
            shown = (self.base if self.is_base else self.erased).get(prompt, [MEANINGS.get(prompt, "tree")])
            colour = shown[seed % len(shown)]
            pictures.append(None if colour is None else stripes(COLOURS[colour]))
            on_drawn(1)
        return pictures


@pytest.fixture
def judge() -> ColourJudge:
    return ColourJudge()


@pytest.fixture
def kitties() -> ConceptSet:
    return ConceptSet(
        target="cat",
        corefs=(
            Related("kitty", 1.0),
            Related("moggy <b>&amp;", 0.33),
            Related("kitten", 1.0, held_out=True),
            Related("feline", 0.6, held_out=True),
        ),
        retains=(Related("dog", 1.0), Related("puppy", 0.8, held_out=True), Related("vixen", 0.6, held_out=True)),
    )


@pytest.fixture
def erasure(kitties: ConceptSet, tmp_path: Path) -> Erasure:
    """A finished run as the training leaves it, without an adapter."""
    config = load_config("demo")
    info = {
        "crce": "0.1.0",
        "status": "finished",
        "model": "demo",
        "revision": "unet-sha256:0011",
        "targets": ["cat"],
        "config": config.model_dump(),
        "sampling": {"steps": 20, "guidance": 4.0, "source": "the bundled model"},
        "started": "2025-01-01T00:00:00+00:00",
        "seconds": {"load": 1.0, "train": 70.0},
        "peak_memory_mb": 900.0,
        "device": "cpu",
        "dtype": "float32",
        "versions": {"torch": "2.8"},
    }
    rows = [{"step": i + 1, "loss": 3 / (i + 1), "target": 1 / (i + 1), "coref": 2 / (i + 1)} for i in range(50)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Erasure(tmp_path, (kitties,), config, info)


@pytest.fixture
def backbone() -> SimpleNamespace:
    return SimpleNamespace(
        drop_t5=False,
        quantized=None,
        reload=None,
        model="demo",
        revision="unet-sha256:0011",
        pipe=None,
        device=torch.device("cpu"),
        use_resolution=lambda side: None,
    )


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ColourModel:
    """Takes the place of adapter and drawing in the evaluation."""
    model = ColourModel()
    monkeypatch.setattr("crce.sampling.image_cache.draw", model.draw)
    monkeypatch.setattr("crce.evaluate.model_pair.apply_adapter", lambda backbone, path: model)
    return model


@pytest.fixture
def scored() -> Callable[..., dict[str, ScoredGroup]]:
    """`scored(coref=[("kitty", 6, 2)])`: groups of phrases recognised in so many of 6 pictures before and after."""

    def make(**phrases: list[tuple[str, int, int]]) -> dict[str, ScoredGroup]:
        groups = {}
        for name in ("target", "coref", "coref_held_out", "retain", "retain_held_out", "unrelated"):
            rows = phrases.get(name, [])
            group = concept_group(name, [Prompt(text, 1.0, "it") for text, _, _ in rows])
            words = [[["it"] * k + ["other"] * (6 - k) for k in counts] for _, *counts in rows]
            groups[name] = score_group(group, [base for base, _ in words], [erased for _, erased in words])
        return groups

    return make
