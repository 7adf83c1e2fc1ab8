"""The change that a run trained, layer by layer: low-rank factors, or a difference of whole weights and its factors.

Of a layer with weight W of shape (C, D), or (C, D, kh, kw) for a convolution, a LoRA holds `down` of shape (r, D) or
(r, D, kh, kw) and `up` of shape (C, r) or (C, r, 1, 1), and adds

    delta W = (alpha / r) up down

Layers are named by the component of the pipeline and the path in it: "unet.mid_block.attentions.0.proj_in".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crce.errors import RunError
from crce.export.formats import TOLERANCE
from crce.export.names import TensorFile, read_file
from crce.files import read_json
from crce.training.adapters import TEXT_TOKENS


SMALLER = (8, 32, 128)  # ranks whose error is reported beside that of the chosen one


@dataclass(frozen=True)
class Factors:
    """The low-rank change of one layer; shapes as above."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def weight_shape(self) -> torch.Size:
        return torch.Size((self.up.shape[0], *self.down.shape[1:]))

    def delta(self) -> torch.Tensor:
        """The change of the weight in float32, of the weight's shape."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return self.alpha / self.rank * product.reshape(self.weight_shape)


@dataclass(frozen=True)
class AdapterFile:
    """A trained adapter as its file holds it."""

    layers: dict[str, Factors]  # of a LoRA, by layer; empty for whole weights
    weights: dict[str, torch.Tensor]  # whole ones, by parameter; empty for a LoRA

    @property
    def components(self) -> list[str]:
        """The components of the pipeline that it changes, in the order of the file."""
        return list(dict.fromkeys(name.partition(".")[0] for name in self.layers or self.weights))

    def shapes(self) -> dict[str, torch.Size]:
        """By layer, the shape of the weight that it changes."""
        whole = {name.removesuffix(".weight"): w.shape for name, w in self.weights.items() if w.ndim > 1}
        return whole or {name: factors.weight_shape for name, factors in self.layers.items()}


def read_adapter(path: Path) -> AdapterFile:
    """Read an adapter; a RunError if it can't be read, isn't one of crce, or lacks tensors."""
    file = read_file(path, "the adapter ", "a finished run")
    kind = file.metadata.get("adapter")
    if kind == TEXT_TOKENS:
        raise RunError(
            f"{path} changes the answers to the text's tokens alone (text_tokens_only), which no LoRA and no weights "
            "can hold: it works in crce only. Erase with --layers text for a file that other programs load."
        )
    if kind not in ("lora", "weights"):
        raise RunError(f"{path} is not an adapter written by crce: its metadata says {kind!r}.")
    made = {name: factors_of(file, name) for name in file.layers} if kind == "lora" else {}
    damaged = [*file.rest, *(name for name, factors in made.items() if factors is None)]
    if kind == "weights":
        text = file.metadata.get("modules", "[]")
        modules = read_json(f"modules in the metadata of {path}", list[str], "Erase again.", text=text)
        held = {key.rpartition(".")[0] for key in file.state}
        damaged = sorted({f"{file.metadata.get('component')}.{module}" for module in modules} - held)
    if damaged:
        raise RunError(f"The adapter {path} is damaged: {damaged[0]} lacks tensors, or is no layer. Erase again.")
    layers = {name: factors for name, factors in made.items() if factors}
    return AdapterFile(layers, file.state if kind == "weights" else {})


def factors_of(file: TensorFile, name: str) -> Factors | None:
    """The change of a layer of a file as a program computes it; None where that isn't known."""
    parts = file.layers[name]
    if name not in file.whole or parts.keys() & {"mid", "dora_scale"}:
        return None
    alpha, rank = file.alpha(name), parts["down"].shape[:1]
    fits = parts["up"].ndim == parts["down"].ndim and parts["up"].shape[1:2] == rank
    return Factors(parts["down"], parts["up"], alpha) if fits and alpha is not None else None


def parameter(pipe: Any, name: str, shape: torch.Size) -> torch.nn.Parameter:
    """The parameter of a pipeline by its name, e.g. "unet.conv_in.weight"; a RunError if none has name and shape."""
    component, _, path = name.partition(".")
    try:
        found = getattr(pipe, component).get_parameter(path)
    except AttributeError as error:
        raise RunError(f"The adapter doesn't fit the model: it has no parameter {name!r}.") from error
    if found.shape != shape:
        shapes = f"{tuple(found.shape)}, the trained one {tuple(shape)}"
        raise RunError(f"The adapter doesn't fit the model: {name} has shape {shapes}.")
    return found


def weight_deltas(adapter: AdapterFile, pipe: Any) -> dict[str, torch.Tensor]:
    """By parameter, the difference of whole trained weights from those of the base model, in float32."""
    return {
        name: trained.float() - parameter(pipe, name, trained.shape).detach().cpu().float()
        for name, trained in adapter.weights.items()
    }


def changed_vectors(deltas: Mapping[str, torch.Tensor]) -> list[str]:
    """The biases and norms among changed parameters: a LoRA can't hold them."""
    return [name for name, delta in deltas.items() if delta.ndim == 1 and bool(delta.any())]


def trained_deltas(adapter: AdapterFile, pipe: Any | None = None) -> dict[str, torch.Tensor]:
    """By layer, the change of its weight, without biases; whole weights need the base model `pipe`."""
    if adapter.layers:
        return {name: factors.delta() for name, factors in adapter.layers.items()}
    deltas = weight_deltas(adapter, pipe).items()
    return {name.removesuffix(".weight"): d for name, d in deltas if name.endswith(".weight") and d.ndim > 1}


@dataclass(frozen=True)
class Factorised:
    """Deltas in low-rank form."""

    layers: dict[str, Factors]  # all of one rank, with alpha equal to it; layers without a change are left out
    rank: int
    needed: int  # the rank that reaches the tolerance in every layer
    worst: float  # the largest error of a layer: the Frobenius norm of the loss over that of the delta
    smaller: dict[int, float]  # for some lower ranks, the largest error that a layer would have


def factorise(deltas: Mapping[str, torch.Tensor], *, rank: int | None = None) -> Factorised:
    """The best low-rank form of each delta, by singular value decomposition.

    All layers get one rank, the smallest that reaches `TOLERANCE` in each of them, because some programs take one
    rank and one alpha for a whole file. A layer that needs less is padded with zeros. Deltas are by layer, of shape
    (C, D) or (C, D, kh, kw); `rank` is an upper limit, with which the relative error may exceed it.
    """
    parts: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    worst = 0.0
    smaller = dict.fromkeys(SMALLER, 0.0)
    needed = 0
    for name, delta in deltas.items():
        left, values, right = torch.linalg.svd(delta.flatten(1).float(), full_matrices=False)
        total = float(values.norm())
        if total == 0:
            continue
        # lost[r] is the norm of what rank r leaves out; the squares are summed from the smallest
        lost = torch.cat([values.double().square().flip(0).cumsum(0).flip(0).sqrt(), torch.zeros(1)]) / total
        enough = int((lost > TOLERANCE).sum())
        kept = enough if rank is None else min(enough, rank)
        needed = max(needed, enough)
        root = values[:kept].sqrt()
        parts[name] = (root[:, None] * right[:kept], left[:, :kept] * root)
        worst = max(worst, float(lost[kept]))
        smaller = {r: max(error, float(lost[min(r, len(values))])) for r, error in smaller.items()}
    if not parts:
        raise RunError("The run changed no weight, so there is nothing to export. Erase with more steps.")
    common = max(down.shape[0] for down, _ in parts.values())
    layers = {}
    for name, (down, up) in parts.items():
        pad, kernel = common - down.shape[0], deltas[name].shape[2:]
        down = torch.nn.functional.pad(down, (0, 0, 0, pad)).reshape(common, -1, *kernel)
        up = torch.nn.functional.pad(up, (0, pad)).reshape(-1, common, *(1 for _ in kernel))
        layers[name] = Factors(down, up, float(common))
    return Factorised(layers, common, needed, worst, {r: e for r, e in smaller.items() if r < common})
