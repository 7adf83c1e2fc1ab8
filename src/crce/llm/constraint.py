"""Decoding constrained to a JSON schema, so that even a tiny model gives a well-formed answer.

At the maximum number of tokens, open strings, lists and objects are closed in the shortest way that the schema allows.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crce.errors import SuggestError


if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor


class Constraint:
    """A logits processor of transformers that allows only tokens with which the answer can follow the schema.

    Attributes:
        closing: whether the maximum number of tokens was reached, and the rest only closes the answer.
    """

    def __init__(self, vocabulary: LLTokenizer, schema: dict[str, Any], asked: int, max_tokens: int) -> None:
        """Build the grammar.

        Args:
            vocabulary: tokens of the model.
            schema: the JSON schema of the answer.
            asked: number of tokens of the question, which come first in the input.
            max_tokens: tokens after which the answer is closed.

        Raises:
            SuggestError: part of the schema can't be enforced.
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
        """Mask the tokens that the schema does not allow.

        Args:
            input_ids: the question and the answer so far, shape (1, L).
            scores: logits of the next token, shape (1, V).

        Returns:
            Logits with -inf where a token is not allowed, shape (1, V).
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
        """Narrow `allowed`, shape (V,), to the one token that ends the innermost open element, if there is one."""
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


def _is_inside_string(text: str) -> bool:
    """Whether the JSON in `text` ends inside a string."""
    inside = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif inside and character == "\\":
            escaped = True
        elif character == '"':
            inside = not inside
    return inside
