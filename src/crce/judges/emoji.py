"""The bundled judge: a small classifier of the bundled model's concepts, trained on artwork."""

from __future__ import annotations

import numpy as np
import torch
from PIL.Image import Image
from safetensors.torch import load_file
from torch import nn

from crce import demo
from crce.files import sha256


class EmojiNetwork(nn.Module):
    """A small convolutional classifier of 64-pixel images."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for i, out in enumerate(widths):
            layers += [nn.Conv2d(width, out, 3, 1 if i else 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(True)]
            layers += [nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(True), nn.MaxPool2d(2)]
            width = out
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, classes))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features before the last layer, shape (B, D), of images in [-1, 1], shape (B, 3, 64, 64)."""
        return self.trunk(images).mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, shape (B, K), of images in [-1, 1], shape (B, 3, 64, 64)."""
        return self.head(self.features(images))


class EmojiJudge:
    """Classifies the concepts of the bundled model (see `crce.demo.world`)."""

    name = "emoji"
    version = "1"
    threshold = 0.0

    def __init__(self) -> None:
        path = demo.weights_path() / "judge.safetensors"
        self.hash = sha256(path)[:16]
        world = demo.world()
        self.classes = [c["name"] for c in world["concepts"]]
        self._class_by_phrase = {
            phrase.casefold(): c["name"]
            for c in world["concepts"]
            for phrase in [c["name"], *c["names"], *c["held_out"]]
        }
        self._network = EmojiNetwork(len(self.classes))
        self._network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        self._network.eval()

    @torch.inference_mode()
    def probs(self, images: list[Image]) -> torch.Tensor:
        """Class probabilities, shape (B, K); images of any size are scaled to 64 pixels."""
        return self._network(pixels(images)).softmax(1)

    @torch.inference_mode()
    def features(self, images: list[Image]) -> torch.Tensor:
        """Features before the last layer, shape (B, 256)."""
        return self._network.features(pixels(images))

    def class_of(self, text: str) -> str | None:
        """The class that a phrase names: a concept's name or one of its synonyms in the world file."""
        return self._class_by_phrase.get(" ".join(text.split()).casefold())


def pixels(images: list[Image]) -> torch.Tensor:
    """Images as a tensor in [-1, 1], shape (B, 3, 64, 64)."""
    arrays = [np.asarray(image.convert("RGB").resize((64, 64)), dtype=np.float32) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1
