"""The bundled text-to-image models, their world and their judge's weights."""

from crce.demo.model import MODELS, model_path, weights_path, world


__all__ = ["MODELS", "model_path", "weights_path", "world"]
