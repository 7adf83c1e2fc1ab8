"""A language model in this process: any causal model that transformers loads, and GGUF files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.errors import SuggestError
from crce.llm.language_model import check_packages, load_language_model, locate
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
        """Set the logits `scores`, shape (1, V), to -inf where the schema does not allow a token.

        Args:
            input_ids: the question and the answer so far, shape (1, L).
            scores: logits of the next token, shape (1, V).
        """
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
        """Check that the model exists; it is loaded for the first question.

        A model is a folder, a GGUF file, the name of a repository on the Hub, or "OWNER/REPOSITORY/FILE.gguf" there.

        Raises:
            SuggestError: a package or the file is missing, or the budget is out of range.
        """
        check_packages(model)
        locate(model)
        self._source = model
        # A path is private: concept sets, which may be shared, name the file or folder only.
        super().__init__(Path(model).name if Path(model).expanduser().exists() else model, token_budget)

    def _answer(
        self, messages: list[Message], schema: dict[str, Any], max_tokens: int, temperature: float, seed: int
    ) -> Reply:
        """The same question with the same seed gets the same answer.

        Raises:
            SuggestError: the model can't be loaded, the question is too long for it, or the schema can't be enforced.
        """
        import torch

        loaded = load_language_model(self._source)
        model = loaded.model
        inputs = encode(loaded.tokenizer, messages).to(model.device)
        asked = inputs.shape[1]
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or CONTEXT
        room = limit - asked
        if room < 1:
            raise SuggestError(
                f"The question has {asked} tokens, too many for local:{self.model}, which takes {limit} in all. "
                "Ask for fewer phrases, or choose a model with a longer context."
            )
        end = loaded.vocabulary.eos_token
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed)
            sampling: dict[str, Any] = {"do_sample": False}
            if temperature > 0:  # from the whole distribution, whatever the settings of the model
                sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            output = model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=min(max_tokens, room),
                logits_processor=[Constraint(loaded.vocabulary, schema, asked)],
                pad_token_id=end,
                eos_token_id=end,
                **sampling,
            )
        tokens = output[0, asked:].tolist()
        text = loaded.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
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
