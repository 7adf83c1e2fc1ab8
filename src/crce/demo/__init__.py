"""The bundled text-to-image model, its world and its judge's weights."""

from crce.demo.model import model_path, weights_path, world


__all__ = ["model_path", "weights_path", "world"]
