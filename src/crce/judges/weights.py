"""Models of transformers as judges: how they are loaded, and the hash of their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from crce.errors import ModelError


if TYPE_CHECKING:
    from transformers import PreTrainedModel

Part = TypeVar("Part")


def load_part(load: Callable[[str], Part], model: str, what: str) -> Part:
    """Load one part of a judge's model.

    Args:
        load: a `from_pretrained` of transformers.
        model: a folder, or the name of a repository on the Hub.
        what: the part, in words.

    Raises:
        ModelError: it can't be found, or is of a kind that transformers does not load so.
    """
    try:
        return load(model)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(
            f"Cannot load {what} of the judge's model {model!r}: {first_line}. "
            "Give a folder that save_pretrained wrote, or the name of a repository on the Hub."
        ) from error


def hash_weights(model: torch.nn.Module) -> str:
    """First 16 hex digits of the SHA-256 of all weights with their names, types and shapes, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def revision(model: PreTrainedModel) -> str:
    """The commit on the Hub that a model was loaded from; "local" for a folder."""
    commit = getattr(model.config, "_commit_hash", None)
    return str(commit)[:12] if commit else "local"
