"""Finds and loads language models: those of transformers, and GGUF files."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.errors import SuggestError


if TYPE_CHECKING:
    from llguidance import LLTokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A language model with its tokenizer, and the tokenizer in the form that the grammar needs."""

    model: Any  # transformers' PreTrainedModel and PreTrainedTokenizerBase, whose types differ between its versions
    tokenizer: Any
    vocabulary: LLTokenizer


@cache
def load_language_model(model: str) -> LoadedModel:
    """Load a model and its tokenizer, once per process.

    Raises:
        SuggestError: it is missing, is not a causal language model, or its tokenizer can't be used with a grammar.
    """
    import torch
    from llguidance.hf import from_tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, file = locate(model)
    extra = {"gguf_file": file} if file else {}
    try:
        with _parsed_once() if file else contextlib.nullcontext():
            tokenizer: Any = AutoTokenizer.from_pretrained(source, **extra)
            network: Any = AutoModelForCausalLM.from_pretrained(source, **extra)
        width = network.get_output_embeddings().weight.shape[0]
        vocabulary = from_tokenizer(tokenizer, n_vocab=max(width, len(tokenizer)))
    except Exception as error:  # transformers raises many types: a missing file, an unknown architecture, a bad header
        why = " ".join(str(error).split())[:300]
        raise SuggestError(
            f"local:{model} can't be loaded: {why}. Give a folder or a GGUF file with a causal language model, "
            "or its name on the Hub."
        ) from error
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    return LoadedModel(network.to(device=device, dtype=dtype).eval(), tokenizer, vocabulary)


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Parse a GGUF file once, and faster than gguf does.

    transformers parses it for the tokenizer, the configuration and the weights each, and a vocabulary of 250,000 words
    takes longer to parse than everything else together.
    """
    import gguf
    import numpy as np

    names = vars(gguf)
    parse = names["GGUFReader"]

    class FastReader(parse):  # type: ignore[misc, valid-type]
        """Slices the fields out of a plain view of the mapped file: each slice of a memmap runs Python code."""

        @property
        def data(self) -> np.ndarray:
            return self._bytes

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self._bytes = mapped.view(np.ndarray)

    names["GGUFReader"] = cache(FastReader)
    try:
        yield
    finally:
        names["GGUFReader"] = parse


def check_packages(model: str) -> None:
    """Raise a SuggestError if a package that the model needs is missing."""
    needed = ("llguidance", "gguf") if model.endswith(".gguf") else ("llguidance",)
    if missing := [package for package in needed if importlib.util.find_spec(package) is None]:
        raise SuggestError(
            f"local:{model} needs the package {' and '.join(missing)}. Install it: pip install 'crce[llm]', "
            "or use --suggester lexicon."
        )


def locate(model: str) -> tuple[str, str | None]:
    """The folder or repository of a model, and the name of its GGUF file, if any.

    Raises:
        SuggestError: there is no such file or folder, and it is not a name on the Hub.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path), None
    if path.is_file():
        if path.suffix != ".gguf":
            raise SuggestError(f"local:{model} is a file of another type. Give a folder or a GGUF file (.gguf).")
        return str(path.parent), path.name
    names = model.removesuffix(".gguf").split("/")
    on_hub = len(names) == 3 if model.endswith(".gguf") else len(names) <= 2
    # anything that looks like a path is a path
    if not on_hub or "" in names or model.startswith((".", "~")) or "\\" in model:
        raise SuggestError(
            f"local:{model}: there is no such file or folder. Check the path, or give OWNER/REPOSITORY or "
            "OWNER/REPOSITORY/FILE.gguf on the Hub."
        )
    *repository, file = model.split("/")
    return ("/".join(repository), file) if model.endswith(".gguf") else (model, None)
