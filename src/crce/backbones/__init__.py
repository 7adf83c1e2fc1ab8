"""Diffusion families that concepts can be erased from."""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from crce.backbones.loading import load_backbone
    from crce.backbones.unet import UNetBackbone


__all__ = ["UNetBackbone", "load_backbone"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that the command line starts without torch.
    if name == "load_backbone":
        from crce.backbones.loading import load_backbone

        return load_backbone
    if name == "UNetBackbone":
        from crce.backbones.unet import UNetBackbone

        return UNetBackbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
