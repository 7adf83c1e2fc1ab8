"""The bundled judges: small classifiers of the bundled model's concepts and styles, trained on artwork.

A report on a style asks for the style of some images and for the content of others, so the judge of styles answers
both questions, each with its own network.
"""

import re
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image
from safetensors.torch import load_file
from torch import nn

from crce import demo
from crce.concepts import atlas
from crce.concepts.concept_set import fold
from crce.files import sha256


WIDTHS = (32, 64, 128, 256)  # of the network of concepts
STYLE_WIDTHS = (16, 32, 64, 128)  # of the network of styles
# Words that only say that a style is meant: "drawn in twemoji icon style" is the style of twemoji.
FILLERS = frozenset("a an the in of by style styles drawn emoji emojis icon icons artwork design drawing art".split())


class EmojiNetwork(nn.Module):
    """A small convolutional classifier of 64-pixel images."""

    def __init__(self, classes: int, widths: tuple[int, ...] = WIDTHS) -> None:
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
        named = [(c["name"], [c["name"], *c["names"], *c["held_out"]]) for c in world["concepts"]]
        self._class_by_phrase = {phrase.casefold(): name for name, phrases in named for phrase in phrases}
        self._network = _load_network(path, len(self.classes))

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


class StyleJudge(EmojiJudge):
    """Classifies the styles and the concepts of the bundled model; its `probs` sum to one over each of the two."""

    name = "emoji-style"

    def __init__(self) -> None:
        super().__init__()
        path = demo.weights_path() / "style_judge.safetensors"
        self.hash = sha256(path)[:8] + self.hash[:8]
        names = [style["phrase"] for style in demo.world()["styles"].values()]
        self.styles = [f"{name} style" for name in names]
        self.classes = [*self.styles, *self.classes]
        self._style_by_words = dict(zip(names, self.styles, strict=True))
        named = {style: (style, *(related.text for related in atlas()[style].corefs)) for style in self.styles}
        self._style_by_phrase = {fold(text): style for style, texts in named.items() for text in texts}
        self._style_network = _load_network(path, len(self.styles), STYLE_WIDTHS)

    def question(self, label: str | None) -> slice:
        """The styles or the things, whichever `label` belongs to; the styles for None."""
        count = len(self.styles)
        return slice(count) if label is None or label in self.styles else slice(count, len(self.classes))

    @torch.inference_mode()
    def probs(self, images: list[Image]) -> torch.Tensor:
        """Class probabilities, shape (B, K), those of the styles first; images are scaled to 64 pixels."""
        return torch.cat([self._style_network(pixels(images)).softmax(1), super().probs(images)], 1)

    @torch.inference_mode()
    def features(self, images: list[Image]) -> torch.Tensor:
        """Features of both networks before their last layers, shape (B, 128 + 256)."""
        return torch.cat([self._style_network.features(pixels(images)), super().features(images)], 1)

    def class_of(self, text: str) -> str | None:
        """The class that a phrase names: the style of "a cat, noto style" or "a cat in noto style", else the thing."""
        for part in map(fold, (text, re.split(r",| in ", text)[-1])):
            words = " ".join(word for word in part.split() if word not in FILLERS)
            if style := self._style_by_phrase.get(part) or self._style_by_words.get(words):
                return style
        return super().class_of(text)


def _load_network(path: Path, classes: int, widths: tuple[int, ...] = WIDTHS) -> EmojiNetwork:
    network = EmojiNetwork(classes, widths)
    network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return network.eval()


def pixels(images: list[Image]) -> torch.Tensor:
    """Images as a tensor in [-1, 1], shape (B, 3, 64, 64)."""
    arrays = [np.asarray(image.convert("RGB").resize((64, 64)), dtype=np.float32) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1
