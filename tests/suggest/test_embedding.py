from __future__ import annotations

import numpy as np
import pytest
import torch

from crce.demo.embedding import Embedder, load_embedder
from crce.demo.model import text_encoder_path


PHRASES = ["cat", "a small grey kitten that sleeps", "Vincent van Gogh", "café au lait", "皮卡丘", "airplane"]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder()


def test_equals_transformers_with_mean_pooling(embedder: Embedder) -> None:
    from transformers import AutoTokenizer, BertModel

    model = BertModel.from_pretrained(text_encoder_path()).eval()
    batch = AutoTokenizer.from_pretrained(text_encoder_path())(PHRASES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    np.testing.assert_allclose(embedder.embed(PHRASES), expected.numpy(), atol=2e-5, rtol=0)


def test_order_repeats_and_unit_length(embedder: Embedder) -> None:
    vectors = embedder.embed(["dog", "cat", "dog"])
    assert vectors.shape == (3, 384)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), np.ones(3), rtol=1e-6)


def test_nothing_gives_an_empty_array(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)
    assert embedder.similarity(["cat"], []).shape == (1, 0)


def test_odd_texts_embed(embedder: Embedder) -> None:
    vectors = embedder.embed(["", "🐈", "word " * 5000])
    assert np.isfinite(vectors).all()


def test_company_does_not_change_a_vector(embedder: Embedder) -> None:
    alone = Embedder(text_encoder_path()).embed(["kitty"])[0]
    among = Embedder(text_encoder_path()).embed([*PHRASES, "kitty", "a far longer phrase about something else"])[-2]
    np.testing.assert_allclose(alone, among, atol=1e-6, rtol=0)


def test_near_in_meaning_is_near(embedder: Embedder) -> None:
    near, far = embedder.similarity(["cat"], ["kitty", "helicopter"])[0].tolist()
    assert near > 0.6 > far + 0.2


def test_each_phrase_is_computed_once(embedder: Embedder) -> None:
    fresh = Embedder(text_encoder_path())
    first = fresh.embed(["cat", "dog"])
    fresh._weights = {}  # whatever is computed from here on fails
    assert np.array_equal(fresh.embed(["dog", "cat"]), first[::-1])
    with pytest.raises(KeyError):
        fresh.embed(["bird"])
    assert load_embedder() is embedder


def test_rarity_tells_common_words_from_rare_ones(embedder: Embedder) -> None:
    assert embedder.rarity("tree frog") == 0 < embedder.rarity("leptodactylid frog")
    assert embedder.rarity("") == 0
