"""Encoded prompts: token states and, where the family has them, pooled states and a mask.

Shapes: B prompts, L tokens, D text width, P pooled width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts, indexed like a batch: `cond[2:4]` and `cond[[0, 0, 3]]` are conditionings too.

    Attributes:
        hidden: token states, shape (B, L, D).
        pooled: one state per prompt, shape (B, P), where the family has one.
        mask: 1 where a token counts and 0 where it is padding, shape (B, L), where the family needs it.
    """

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None
    mask: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, rows: slice | Sequence[int] | torch.Tensor) -> Conditioning:
        return self.each(lambda part: part[rows])

    def expand(self, size: int) -> Conditioning:
        """One prompt as a batch of `size`, without a copy."""
        return self.each(lambda part: part.expand(size, *part.shape[1:]))

    def split(self, size: int) -> Iterator[Conditioning]:
        """Batches of at most `size` prompts."""
        return (self[start : start + size] for start in range(0, len(self), size))

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """The prompts of several conditionings in order."""
        # Within a family all have pooled states and masks, or none.
        hidden, *others = zip(*((part.hidden, part.pooled, part.mask) for part in parts), strict=True)
        return Conditioning(torch.cat(hidden), *(None if each[0] is None else torch.cat(each) for each in others))

    @staticmethod
    def padded(states: Sequence[torch.Tensor], length: int) -> Conditioning:
        """Prompts of different lengths, each of shape (L, D), padded with zeros that the mask leaves out."""
        hidden = torch.stack([pad(tokens, (0, 0, 0, length - len(tokens))) for tokens in states])
        lengths = torch.tensor([[len(tokens)] for tokens in states], device=hidden.device)
        return Conditioning(hidden, mask=torch.arange(length, device=hidden.device) < lengths)

    @staticmethod
    def empty(
        count: int, length: int, width: int, dtype: torch.dtype, *, pooled: int = 0, masked: bool = False
    ) -> Conditioning:
        """`count` prompts of `length` tokens on the meta device; `pooled` is the pooled width, 0 for none."""
        return Conditioning(
            torch.empty(count, length, width, dtype=dtype, device="meta"),
            torch.empty(count, pooled, dtype=dtype, device="meta") if pooled else None,
            torch.ones(count, length, dtype=torch.bool) if masked else None,
        )

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Conditioning:
        pooled, mask = (part if part is None else change(part) for part in (self.pooled, self.mask))
        return Conditioning(change(self.hidden), pooled, mask)
