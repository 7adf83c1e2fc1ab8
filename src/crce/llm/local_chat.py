"""A language model in this process: any causal model that transformers loads, and GGUF files."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.errors import SuggestError
from crce.llm.protocol import Chat, Message, Reply


if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor


class Constraint:
    """A logits processor of transformers that allows only tokens with which the answer can follow the schema."""

    def __init__(self, vocabulary: LLTokenizer, schema: dict[str, Any], asked: int) -> None:
        """Build the grammar; the input begins with `asked` tokens."""
        from llguidance import LLMatcher

        # No free white space: a small model would fill its answer with it.
        spacing = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=spacing)  # type: ignore[arg-type]
        self._matcher: LLMatcher = LLMatcher(vocabulary, grammar, log_level=0)
        if self._matcher.is_error():
            raise SuggestError(f"The schema of the answer can't be enforced: {self._matcher.get_error()}.")
        self._asked = asked

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The logits `scores`, shape (1, V), with -inf where the schema allows none after `input_ids`, (1, L)."""
        import torch

        if input_ids.shape[1] > self._asked:
            self._matcher.consume_token(int(input_ids[0, -1]))
        if self._matcher.is_error():
            raise SuggestError(f"The answer left its schema: {self._matcher.get_error()}. Choose another model.")
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8).bool()
        allowed = torch.nn.functional.pad(allowed, (0, scores.shape[-1] - len(allowed)))  # models pad their vocabulary
        return scores.masked_fill(~allowed.to(scores.device), float("-inf"))


CONTEXT = 4096  # tokens, for a model that does not state its own


class LocalChat(Chat):
    """A causal language model that answers in JSON of the schema."""

    provider = "local"
    remote = False

    def __init__(self, model: str, *, token_budget: int = 100_000) -> None:
        """Check that the model exists: a folder, a GGUF file or a name on the Hub. The first question loads it."""
        needed = ("llguidance", "gguf") if model.endswith(".gguf") else ("llguidance",)
        if missing := [package for package in needed if importlib.util.find_spec(package) is None]:
            raise SuggestError(
                f"local:{model} needs the package {' and '.join(missing)}. Install it: pip install 'crce[llm]', "
                "or use --suggester lexicon."
            )
        locate(model)
        self._source = model
        # A path is private: concept sets, which may be shared, name the file or folder only.
        super().__init__(Path(model).name if Path(model).expanduser().exists() else model, token_budget)

    def _answer(
        self, messages: list[Message], schema: dict[str, Any], max_tokens: int, temperature: float, seed: int
    ) -> Reply:
        """The same question with the same seed gets the same answer."""
        import torch

        model, tokenizer, vocabulary = load_language_model(self._source)
        inputs = encode(tokenizer, messages).to(model.device)
        asked = inputs.shape[1]
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or CONTEXT
        room = limit - asked
        if room < 1:
            raise SuggestError(
                f"The question has {asked} tokens, too many for local:{self.model}, which takes {limit} in all. "
                "Ask for fewer phrases, or choose a model with a longer context."
            )
        end = vocabulary.eos_token
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []), torch.inference_mode():
            torch.manual_seed(seed)
            sampling: dict[str, Any] = {"do_sample": False}
            if temperature > 0:  # from the whole distribution, whatever the settings of the model
                sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            output = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=min(max_tokens, room),
                logits_processor=[Constraint(vocabulary, schema, asked)],
                pad_token_id=end,
                eos_token_id=end,
                **sampling,
            )
        tokens = output[0, asked:].tolist()
        text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Reply(str(text), "stop" if tokens[-1] == end else "length", asked, len(tokens))


def encode(tokenizer: Any, messages: list[Message]) -> Tensor:
    """The token ids of a conversation, shape (1, L), by the tokenizer's chat template if it has one."""
    from jinja2.exceptions import TemplateError

    if not tokenizer.chat_template:  # a model without chat training continues a text
        text = "\n\n".join(message.content for message in messages) + "\n\n"
        return tokenizer(text, return_tensors="pt")["input_ids"]

    try:
        said = [{"role": message.role, "content": message.content} for message in messages]
        settings = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        return tokenizer.apply_chat_template(said, **settings)["input_ids"]
    except TemplateError:  # no system role: prepend its text to the first question
        system = "".join(f"{message.content}\n\n" for message in messages if message.role == "system")
        turns = [message for message in messages if message.role != "system"]
        if not system or not turns:
            raise
        return encode(tokenizer, [replace(turns[0], content=system + turns[0].content), *turns[1:]])


@cache
def load_language_model(model: str) -> tuple[Any, Any, LLTokenizer]:
    """Load a model and its tokenizer, also in the form that the grammar needs, once per process.

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
    return network.to(device=device, dtype=dtype).eval(), tokenizer, vocabulary


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Parse a GGUF file once and fast; transformers does it thrice, for 10 s each where the vocabulary is large."""
    import gguf
    import numpy as np

    names = vars(gguf)
    parse = names["GGUFReader"]

    class FastReader(parse):  # type: ignore[misc, valid-type]
        """Slices the fields out of a plain view of the mapped file: each slice of a memmap runs Python code."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value.view(np.ndarray) if name == "data" else value)

    names["GGUFReader"] = cache(FastReader)
    try:
        yield
    finally:
        names["GGUFReader"] = parse


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
