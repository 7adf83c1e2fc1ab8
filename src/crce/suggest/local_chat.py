"""A language model in this process: any causal model that transformers loads, and GGUF files.

Decoding is held to the JSON schema token by token, so that even a tiny model can't answer malformed. When the allowed
number of tokens is used up, what is open is closed in the shortest way the schema allows.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.errors import SuggestError
from crce.suggest.budget import TokenBudget
from crce.suggest.chat import Message, Reply


if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor

CLOSING = 400  # tokens beyond the allowed number, for closing what is open
CONTEXT = 4096  # tokens, for a model that does not say how many it takes


@dataclass(frozen=True)
class Loaded:
    """A language model with its tokenizer, and the tokenizer as the grammar sees it."""

    model: Any  # transformers' PreTrainedModel and PreTrainedTokenizerBase, whose types differ between its versions
    tokenizer: Any
    vocabulary: LLTokenizer


class LocalChat:
    """A causal language model that answers in JSON of a schema, always."""

    provider = "local"
    remote = False

    def __init__(self, model: str, *, token_budget: int = 100_000) -> None:
        """Check that the model can be loaded; it is loaded with the first question.

        Args:
            model: a folder, a GGUF file, the name of a repository on the Hub, or "OWNER/REPOSITORY/FILE.gguf" there.
            token_budget: tokens that all questions and answers together may have.

        Raises:
            SuggestError: a package or the file is missing, or the budget is out of range.
        """
        _check_packages(model)
        _locate(model)
        self._source = model
        # A path is the person's own affair: concept sets, which are passed on, name the file or folder alone.
        self.model = Path(model).name if Path(model).expanduser().exists() else model
        self._budget = TokenBudget(token_budget)

    def complete(
        self,
        messages: list[Message],
        schema: dict[str, Any],
        *,
        max_tokens: int = 2000,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Reply:
        """Answer once, as JSON of the schema; the same question with the same seed has the same answer.

        Raises:
            SuggestError: the model can't be loaded, the question is too long for it, the schema can't be enforced, or
                the token budget is spent.
        """
        import torch

        max_tokens = self._budget.allow(messages, max_tokens)
        loaded = load_language_model(self._source)
        model = loaded.model
        inputs = encode(loaded.tokenizer, messages).to(model.device)
        asked = inputs.shape[1]
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or CONTEXT
        room = limit - asked - CLOSING
        if room < 1:
            raise SuggestError(
                f"The question has {asked} tokens, too many for local:{self.model}, which takes {limit} in all. "
                "Ask for fewer phrases, or choose a model with a longer context."
            )
        constraint = Constraint(loaded.vocabulary, schema, asked, min(max_tokens, room))
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed)
            sampling: dict[str, Any] = {"do_sample": False}
            if temperature > 0:  # from the whole distribution, whatever the model's own settings cut off
                sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            output = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=min(max_tokens, room) + CLOSING,
                logits_processor=[constraint],
                pad_token_id=loaded.vocabulary.eos_token,
                eos_token_id=loaded.vocabulary.eos_token,
                **sampling,
            )
        tokens = output[0, asked:].tolist()
        text = loaded.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        reply = Reply(str(text), "length" if constraint.closing else "stop", asked, len(tokens))
        self._budget.spend(messages, reply)
        return reply


class Constraint:
    """A logits processor of transformers that lets through only what the schema allows next.

    Attributes:
        closing: whether the allowed number of tokens was used up and the rest only closes what was open.
    """

    def __init__(self, vocabulary: LLTokenizer, schema: dict[str, Any], asked: int, max_tokens: int) -> None:
        """Build the grammar.

        Args:
            vocabulary: the model's tokens.
            schema: the JSON schema of the answer.
            asked: tokens of the question, which come first in what the processor is given.
            max_tokens: tokens after which the answer is closed.

        Raises:
            SuggestError: the schema holds something that can't be enforced.
        """
        from llguidance import LLMatcher

        # No free white space: a small model would fill its answer with it.
        spacing = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=spacing)  # type: ignore[arg-type]
        self._matcher: LLMatcher = LLMatcher(vocabulary, grammar, log_level=0)
        if self._matcher.is_error():
            raise SuggestError(f"The schema of the answer can't be enforced: {self._matcher.get_error()}.")
        self._vocabulary = vocabulary
        self._asked = asked
        self._max_tokens = max_tokens
        self._closers = {mark: vocabulary.tokenize_str(mark) for mark in ('"', "]", "}")}
        self.closing = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Rule out what the schema does not allow.

        Args:
            input_ids: the question and the answer so far, shape (1, L).
            scores: logits of the next token, shape (1, V).

        Returns:
            Logits with -inf for what is not allowed, shape (1, V).
        """
        import torch

        answered = input_ids[0, self._asked :].tolist()
        if answered:
            self._matcher.consume_token(answered[-1])
        if self._matcher.is_error():
            raise SuggestError(f"The answer left its schema: {self._matcher.get_error()}. Choose another model.")
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8).bool()
        if len(answered) >= self._max_tokens and not self._matcher.is_stopped():
            self.closing = True
            self._close(allowed, answered)
        size = scores.shape[-1]  # models pad their vocabulary
        mask = torch.zeros(size, dtype=torch.bool)
        mask[: min(size, len(allowed))] = allowed[:size]
        return scores.masked_fill(~mask.to(scores.device), float("-inf"))

    def _close(self, allowed: Tensor, answered: list[int]) -> None:
        """Narrow `allowed`, shape (V,), to the one token that closes what is open, where there is one."""
        if bool(allowed[self._vocabulary.eos_token]):
            shortest = [self._vocabulary.eos_token]
        else:
            inside = _is_inside_string(self._vocabulary.decode_bytes(answered).decode(errors="replace"))
            marks = '"' if inside else "}]"
            tokens = [self._closers[mark][0] for mark in marks if len(self._closers[mark]) == 1]
            shortest = [token for token in tokens if bool(allowed[token])]
        if shortest:
            allowed[:] = False
            allowed[shortest[0]] = True


@cache
def load_language_model(model: str) -> Loaded:
    """Load a model and its tokenizer, once per process.

    Raises:
        SuggestError: it is missing, is no causal language model, or its tokenizer can't be read token by token.
    """
    import torch
    from llguidance.hf import from_tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, file = _locate(model)
    extra = {"gguf_file": file} if file else {}
    try:
        with _parsed_once() if file else contextlib.nullcontext():
            tokenizer: Any = AutoTokenizer.from_pretrained(source, **extra)
            network: Any = AutoModelForCausalLM.from_pretrained(source, **extra)
        width = network.get_output_embeddings().weight.shape[0]
        vocabulary = from_tokenizer(tokenizer, n_vocab=max(width, len(tokenizer)))
    except Exception as error:  # transformers raises many kinds: a missing file, an unknown kind, a bad header
        why = " ".join(str(error).split())[:300]
        raise SuggestError(
            f"local:{model} can't be loaded: {why}. Give a folder or a GGUF file with a causal language model, "
            "or its name on the Hub."
        ) from error
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    return Loaded(network.to(device=device, dtype=dtype).eval(), tokenizer, vocabulary)


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Inside, a GGUF file is parsed once, and quicker than by gguf alone.

    transformers parses it anew for the tokenizer, the configuration and the weights, and a vocabulary of a quarter
    million words takes longer to parse than all else together.
    """
    import gguf
    import numpy as np

    names = vars(gguf)
    parse = names["GGUFReader"]

    class Reader(parse):  # type: ignore[misc, valid-type]
        """Cuts the fields out of a plain view of the mapped file: each cut out of a memmap runs Python code."""

        @property
        def data(self) -> np.ndarray:
            return self._bytes

        @data.setter
        def data(self, mapped: np.ndarray) -> None:
            self._bytes = mapped.view(np.ndarray)

    names["GGUFReader"] = cache(Reader)
    try:
        yield
    finally:
        names["GGUFReader"] = parse


def encode(tokenizer: Any, messages: list[Message]) -> Tensor:
    """The question as the model was trained to read it.

    Args:
        tokenizer: that of transformers, with the model's chat template if it has one.
        messages: the conversation so far.

    Returns:
        Token ids, shape (1, L).
    """
    from jinja2.exceptions import TemplateError

    if not tokenizer.chat_template:  # a model that was never taught to chat goes on with a text
        text = "\n\n".join(message.content for message in messages) + "\n\n"
        return tokenizer(text, return_tensors="pt")["input_ids"]

    def render(turns: list[dict[str, str]]) -> Tensor:
        settings = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        return tokenizer.apply_chat_template(turns, **settings)["input_ids"]

    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return render(turns)
    except TemplateError:  # no system role: its text goes before the first question
        system = "".join(f"{turn['content']}\n\n" for turn in turns if turn["role"] == "system")
        turns = [turn for turn in turns if turn["role"] != "system"]
        if not system or not turns:
            raise
        turns[0] = {"role": turns[0]["role"], "content": system + turns[0]["content"]}
        return render(turns)


def _check_packages(model: str) -> None:
    from importlib.util import find_spec

    needed = ("llguidance", "gguf") if model.endswith(".gguf") else ("llguidance",)
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise SuggestError(
            f"local:{model} needs the package {' and '.join(missing)}. Install it: pip install 'crce[llm]', "
            "or use --suggester lexicon."
        )


def _locate(model: str) -> tuple[str, str | None]:
    """The folder or repository of a model, and the name of its GGUF file if it is one."""
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path), None
    if path.is_file():
        if path.suffix != ".gguf":
            raise SuggestError(f"local:{model} is a file of another kind. Give a folder or a GGUF file (.gguf).")
        return str(path.parent), path.name
    parts = model.split("/")
    # A name on the Hub is "repository" or "owner/repository"; anything that looks like a path is meant as one.
    if path.is_absolute() or model.startswith((".", "~")) or "\\" in model or "" in parts:
        raise SuggestError(f"local:{model}: there is no such file or folder. Check the path.")
    if model.endswith(".gguf"):
        if len(parts) != 3:
            raise SuggestError(
                f"local:{model}: there is no such file. Check the path, or give OWNER/REPOSITORY/FILE.gguf on the Hub."
            )
        return f"{parts[0]}/{parts[1]}", parts[2]
    if len(parts) > 2:
        raise SuggestError(f"local:{model}: there is no such folder. Check the path, or give OWNER/REPOSITORY.")
    return model, None


def _is_inside_string(text: str) -> bool:
    """Whether the JSON in `text` ends within a string."""
    inside = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif inside and character == "\\":
            escaped = True
        elif character == '"':
            inside = not inside
    return inside
