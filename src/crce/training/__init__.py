"""Erasing: settings, the training loop, adapters and run folders."""

from typing import TYPE_CHECKING, Any

from crce.training.config import ErasureConfig, load_config, recipe_names
from crce.training.events import Event, Finished, Interrupted, Saved, Started, Step


if TYPE_CHECKING:
    from crce.training.adapters import apply_adapter
    from crce.training.run import erase, resume
    from crce.training.run_folder import Erasure
    from crce.training.trainer import Trainer

_LAZY = {
    "Erasure": "crce.training.run_folder",
    "Trainer": "crce.training.trainer",
    "apply_adapter": "crce.training.adapters",
    "erase": "crce.training.run",
    "resume": "crce.training.run",
}

__all__ = [
    "Erasure",
    "ErasureConfig",
    "Event",
    "Finished",
    "Interrupted",
    "Saved",
    "Started",
    "Step",
    "Trainer",
    "apply_adapter",
    "erase",
    "load_config",
    "recipe_names",
    "resume",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that the command line starts without torch.
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
