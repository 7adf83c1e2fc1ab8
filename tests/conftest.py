"""What several test modules share: tiny pipelines of the real classes, and the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from crce.backbones import UNetBackbone, load_backbone
from crce.concepts import ConceptSet, Related


@pytest.fixture(autouse=True)
def no_decisions(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Suggestions of the tests know nothing of what the user has decided, and leave nothing behind."""
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path_factory.getbasetemp() / "decisions-of-nobody.jsonl"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline with epsilon prediction."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.pipeline(folder / "parts").save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def tiny_backbone(tiny_folder: Path) -> UNetBackbone:
    return load_backbone(str(tiny_folder), device="cpu")


@pytest.fixture(scope="session")
def demo_backbone() -> UNetBackbone:
    """The bundled model; whoever puts an adapter on it takes it off again."""
    return load_backbone("demo", device="cpu")


@pytest.fixture(scope="session")
def cats() -> ConceptSet:
    """A small concept set with training and held-out phrases."""
    return ConceptSet(
        target="cat",
        corefs=(
            Related("kitty", 1.0),
            Related("house cat", 0.8),
            Related("tabby", 0.6),
            Related("moggy", 0.4),
            Related("kitten", 1.0, held_out=True),
        ),
        retains=(Related("dog", 1.0), Related("fox", 0.8), Related("tiger", 0.5), Related("wolf", 1.0, held_out=True)),
    )
