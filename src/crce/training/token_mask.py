"""The mask that keeps what an adapter changes to the tokens of the text, in layers that text and image share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from crce.backbones import Backbone


class TokenMask:
    """Hooks on a denoiser and on the modules that compute an adapter's changes, until `close`."""

    def __init__(self, backbone: Backbone, changes: Iterable[nn.Module]) -> None:
        """Each of `changes` computes what is added to the answer of a layer, shape (B, L, C) with L tokens."""
        self._text, self._find = slice(0), backbone.text_tokens
        self._hooks = [backbone.network.register_forward_pre_hook(self._locate, with_kwargs=True)]
        self._hooks += [change.register_forward_hook(self._masked) for change in changes]

    def _locate(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._text = self._find(named, *arguments)

    def _masked(self, _: nn.Module, __: object, change: torch.Tensor) -> torch.Tensor:
        mask = change.new_zeros(change.shape[1], 1)
        mask[self._text] = 1
        return change * mask

    def close(self) -> None:
        """Take the mask off."""
        for hook in self._hooks:
            hook.remove()
