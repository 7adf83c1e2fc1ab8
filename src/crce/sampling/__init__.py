"""Images of a diffusion pipeline: generated from prompts and seeds, and cached."""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.sampling.generate import draw
    from crce.sampling.image_cache import ImageCache, ImageKey, ModelState
    from crce.sampling.pictures import Picture
    from crce.sampling.samples import Sample

__all__ = ["ImageCache", "ImageKey", "ModelState", "Picture", "Sample", "draw"]

__getattr__ = lazy_names(__name__)
