"""How near two phrases are in meaning: see `crce.demo.embedding`, which evaluations use too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.demo.embedding import Embedder, Words, load_embedder


if TYPE_CHECKING:
    from crce.demo.embedding import Vectors

__all__ = ["Embedder", "Vectors", "Words", "load_embedder"]
