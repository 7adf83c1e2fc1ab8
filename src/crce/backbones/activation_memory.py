"""The memory that a forward pass keeps for its backward pass, counted on tensors without values.

Operations run on the meta device, where autocast does not work and attention falls back to the kernel that keeps all
scores. `ActivationMemory` imitates a GPU: it casts as autocast does, and keeps what fused attention kernels keep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


# The lists of autocast on CUDA, as far as denoisers need them.
_LOW = {"linear", "matmul", "__matmul__", "bmm", "baddbmm", "addmm", "conv2d", "scaled_dot_product_attention"}
_FULL = {"layer_norm", "group_norm", "softmax", "pow", "__pow__", "rsqrt", "exp", "norm", "sum", "prod"}


class ActivationMemory(TorchFunctionMode):
    """Inside, the bytes that autograd saves are counted, each storage once and parameters not at all.

    Attributes:
        saved: bytes kept until the backward pass.
        checkpointed: the same where `checkpoint` keeps the inputs of a part instead of what is computed in it.
        recomputed: the most that one such part keeps while the backward pass computes it again.
        largest: bytes of the largest result of an operation.
    """

    def __init__(self, network: torch.nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.saved = self.checkpointed = self.recomputed = self.largest = 0
        self._dtype = dtype
        self._own = {_storage(t) for t in (*network.parameters(), *network.buffers())}
        self._all: dict[int, torch.Tensor] = {}  # holds the tensors, so no address is reused
        self._parts: list[dict[int, torch.Tensor]] = [{}]

    def __enter__(self) -> ActivationMemory:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.__exit__(*error)
        self.saved, self.checkpointed = _bytes(self._all), _bytes(self._parts[0])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self._dtype != torch.float32 and name in _LOW | _FULL:
            wanted = self._dtype if name in _LOW else torch.float32
            args, kwargs = tree_map(lambda value: _cast(value, wanted), (args, kwargs))
        if name == "scaled_dot_product_attention":
            out = _attention(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
        if isinstance(out, torch.Tensor) and out.device.type == "meta":
            self.largest = max(self.largest, out.untyped_storage().nbytes())
        return out

    def checkpoint(self, part: Callable[..., Any], *args: Any) -> Any:
        """For `enable_gradient_checkpointing`: counts a part both ways."""
        inputs = {_storage(value): value for value in args if isinstance(value, torch.Tensor)}
        self._parts[-1] |= {key: value for key, value in inputs.items() if key not in self._own}
        self._parts.append({})
        out = part(*args)
        self.recomputed = max(self.recomputed, _bytes(self._parts.pop()))
        return out

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        if _storage(tensor) not in self._own:
            self._all[_storage(tensor)] = self._parts[-1][_storage(tensor)] = tensor
        return tensor


class _Fused(torch.autograd.Function):
    """Attention that saves what flash and memory-efficient kernels save: inputs, output, one number per query."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        raise NotImplementedError("no backward pass is run")


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return _Fused.apply(query, key, value)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensors: dict[int, torch.Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
