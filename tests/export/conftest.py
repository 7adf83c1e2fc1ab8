"""Runs of tiny models, and what they draw with the adapter that crce applies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from runs import latents, make_run

from crce.backbones import load_backbone
from crce.concepts import ConceptSet
from crce.training import Erasure, apply_adapter


@pytest.fixture(scope="session")
def v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline like Stable Diffusion 2.x: linear projections, v prediction."""
    folder = tmp_path_factory.mktemp("tiny-v")
    tiny.pipeline(folder / "parts", "v_prediction").save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def run(tiny_folder: Path, cats: ConceptSet, tmp_path: Path) -> Callable[..., Erasure]:
    """`run(rank=4, lora_alpha=1.0)` makes a run of the tiny model; settings are those of ErasureConfig."""

    def make(model: Path = tiny_folder, sets: tuple[ConceptSet, ...] = (cats,), **settings: Any) -> Erasure:
        number = len(list(tmp_path.glob("run-*")))
        return make_run(tmp_path / f"run-{number}", str(model), sets, **settings)

    return make


@pytest.fixture
def drawn() -> Callable[[Erasure], torch.Tensor]:
    """What a run's model draws with the adapter on; it must differ from what the base model draws."""

    def draw(erasure: Erasure) -> torch.Tensor:
        backbone = load_backbone(erasure.info["model"], device="cpu")
        before = latents(backbone.pipe)
        adapter = apply_adapter(backbone, erasure.adapter)
        after = latents(backbone.pipe)
        with adapter.disabled():
            assert torch.equal(latents(backbone.pipe), before)
        assert (after - before).abs().max() > 0.05
        return after

    return draw
