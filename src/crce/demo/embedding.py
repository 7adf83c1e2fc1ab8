"""Sentence embeddings of phrases, by the bundled MiniLM-L6: similarity in meaning.

The network is the text encoder of the bundled model, with the mean over tokens and the L2 norm that it was trained
with (Wang et al., "MiniLM", 2020; Reimers and Gurevych, "Sentence-BERT", 2019). Its six layers are written in numpy
because importing torch or transformers alone takes as long as a whole suggestion should; a test compares them with
those of transformers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


Vectors = NDArray[np.float32]

WIDTH = 384
LAYERS = 6
HEADS = 12
TOKENS = 64  # longer texts are cut; phrases of prompts are much shorter
BATCH = 128


class Embedder:
    """Embeds phrases by the MiniLM-L6 in a folder; each once per process."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        weights = load_file(folder / "model.safetensors")
        self._weights = {name: tensor.astype(np.float32) for name, tensor in weights.items()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS)
        self._known: dict[str, Vectors] = {}

    def embed(self, texts: Iterable[str]) -> Vectors:
        """The embeddings of B phrases in their order, unit vectors of shape (B, 384); B may be 0."""
        wanted = list(texts)
        new = list(dict.fromkeys(text for text in wanted if text not in self._known))
        # Batches hold phrases of one length: nothing is padded, so a vector does not depend on the rest of the batch.
        by_length: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
        for text, encoding in zip(new, self._tokenizer.encode_batch(new), strict=True):
            by_length[len(encoding.ids)].append((text, encoding.ids))
        for group in by_length.values():
            for i in range(0, len(group), BATCH):
                part = group[i : i + BATCH]
                vectors = self._forward(np.array([ids for _, ids in part]))
                self._known.update(zip((text for text, _ in part), vectors, strict=True))
        if not wanted:
            return np.zeros((0, WIDTH), np.float32)
        return np.stack([self._known[text] for text in wanted])

    def similarity(self, a: Sequence[str], b: Sequence[str]) -> Vectors:
        """The cosine of every phrase of `a` with every phrase of `b`, shape (A, B), in [-1, 1]."""
        return self.embed(a) @ self.embed(b).T

    def rarity(self, text: str) -> float:
        """Word pieces of `text` beyond one per word, per word: 0 for common words, more for rare ones."""
        pieces = len(self._tokenizer.encode(text, add_special_tokens=False).ids)
        words = len(text.replace("-", " ").split())
        return max(pieces - words, 0) / max(words, 1)

    def _forward(self, ids: NDArray[np.int64]) -> Vectors:
        """BERT over token ids of shape (B, L), then the mean over tokens, of unit length: shape (B, 384)."""
        from scipy.special import ndtr

        w = self._weights
        batch, length = ids.shape
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:length]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")  # (B, L, 384)
        for i in range(LAYERS):
            layer = f"encoder.layer.{i}"
            q, k, v = (
                self._linear(x, f"{layer}.attention.self.{name}")
                .reshape(batch, length, HEADS, WIDTH // HEADS)
                .transpose(0, 2, 1, 3)
                for name in ("query", "key", "value")
            )  # each (B, 12, L, 32)
            scores = q @ k.transpose(0, 1, 3, 2) * (WIDTH // HEADS) ** -0.5
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            attended = shares / shares.sum(-1, keepdims=True) @ v
            attended = attended.transpose(0, 2, 1, 3).reshape(batch, length, WIDTH)
            attended = self._linear(attended, f"{layer}.attention.output.dense")
            x = self._norm(x + attended, f"{layer}.attention.output.LayerNorm")
            wide = self._linear(x, f"{layer}.intermediate.dense")  # (B, L, 1536)
            wide *= ndtr(wide)  # GELU
            x = self._norm(x + self._linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        mean = x.mean(1)
        return mean / np.linalg.norm(mean, axis=-1, keepdims=True).clip(1e-12)

    def _linear(self, x: Vectors, name: str) -> Vectors:
        # One large matrix product instead of one for each phrase.
        flat = x.reshape(-1, x.shape[-1]) @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return flat.reshape(*x.shape[:-1], -1)

    def _norm(self, x: Vectors, name: str) -> Vectors:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-12)
        return scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


@cache
def load_embedder() -> Embedder:
    """The embedder over the bundled MiniLM, loaded once per process."""
    from crce.demo.model import text_encoder_path

    return Embedder(text_encoder_path())
