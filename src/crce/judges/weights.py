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
    """The shared part of judges that run a model of transformers.

    Args:
        kind: the judge's name on the command line.
        load: `from_pretrained` of the model's class.
        model: a folder, or the name of a repository on the Hub; where none is named, messages suggest the `example`.
        device: where the model runs.

    Raises:
        ConfigError: no model is named.
        ModelError: it can't be loaded.
    """

    threshold = 0.0

    def __init__(self, kind: str, load: Callable[[str], Any], model: str, device: str, example: str) -> None:
        from transformers import AutoImageProcessor

        if not model:
            raise ConfigError(f"The judge {kind} needs a model: {kind}:MODEL, e.g. {kind}:{example}.")
        network = load_part(load, model, "the weights")
        self.name = f"{kind}:{model}"
        self.version = revision(network)
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
    """Load one part of a judge's model with a `from_pretrained` of transformers; `what` names it in messages.

    Raises:
        ModelError: it can't be found, or transformers can't load it with this class.
    """
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


def revision(model: Any) -> str:
    """The commit on the Hub that a model was loaded from; "local" for a folder."""
    commit = getattr(model.config, "_commit_hash", None)
    return str(commit)[:12] if commit else "local"
