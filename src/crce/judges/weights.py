"""Models of transformers as judges: loading, the hash of the weights, and preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from PIL.Image import Image

from crce.backbones.loading import pick_device
from crce.errors import ConfigError, ModelError, first_line


Part = TypeVar("Part")


class TransformersJudge:
    """The shared part of judges of a `kind` that run a model of transformers: a folder or a repository on the Hub.

    `load` is `from_pretrained` of its class; where no model is named, the message suggests the `example`.
    """

    threshold = 0.0

    def __init__(self, kind: str, load: Callable[[str], Any], model: str, device: str, example: str) -> None:
        from transformers import AutoImageProcessor

        if not model:
            raise ConfigError(f"The judge {kind} needs a model: {kind}:MODEL, e.g. {kind}:{example}.")
        network = load_part(load, model, "the weights")
        self.name = f"{kind}:{model}"
        commit = getattr(network.config, "_commit_hash", None)  # on the Hub
        self.version = str(commit)[:12] if commit else "local"
        self.hash = hash_weights(network)
        self.classes: list[str] = []
        self._device = pick_device(device)
        self._network: Any = network.float().eval().to(self._device)
        self._processor: Any = load_part(AutoImageProcessor.from_pretrained, model, "the image processor")

    def _pixels(self, images: list[Image]) -> torch.Tensor:
        """The model's input, shape (B, 3, h, w)."""
        rgb = [image.convert("RGB") for image in images]
        return self._processor(images=rgb, return_tensors="pt").pixel_values.to(self._device)


def load_part(load: Callable[[str], Part], model: str, what: str) -> Part:
    """Load one part of a judge's model with a `from_pretrained` of transformers; `what` names it in messages."""
    try:
        return load(model)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ModelError(
            f"Cannot load {what} of the judge's model {model!r}: {first_line(error)}. "
            "Give a folder that save_pretrained wrote, or the name of a repository on the Hub."
        ) from error


def hash_weights(model: torch.nn.Module) -> str:
    """First 16 hex digits of the SHA-256 of all weights with their names, types and shapes, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
