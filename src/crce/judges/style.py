"""The bundled judge of styles: the artwork's style, and the thing that an image shows.

A report on a style asks for the style of some images and for the content of others, so this judge answers both
questions, each with its own network: a small one for styles, trained on the same artwork, and that of the judge
"emoji" for things.
"""

from __future__ import annotations

import re

import torch
from PIL.Image import Image
from safetensors.torch import load_file

from crce import demo
from crce.concepts import atlas
from crce.concepts.concept_set import fold
from crce.files import sha256
from crce.judges.emoji import EmojiJudge, EmojiNetwork, pixels


WIDTHS = (16, 32, 64, 128)
# Words that only say that a style is meant: "drawn in twemoji icon style" is the style of twemoji.
FILLERS = frozenset("a an the in of by style styles drawn emoji emojis icon icons artwork design drawing art".split())


class StyleJudge:
    """Classifies the styles and the concepts of the bundled model; its `probs` sum to one over each of the two."""

    name = "emoji-style"
    version = "1"
    threshold = 0.0

    def __init__(self) -> None:
        path = demo.weights_path() / "style_judge.safetensors"
        self._things = EmojiJudge()
        self.hash = sha256(path)[:8] + self._things.hash[:8]
        names = [style["phrase"] for style in demo.world()["styles"].values()]
        self.styles = [f"{name} style" for name in names]
        self.classes = [*self.styles, *self._things.classes]
        self._style_by_words = dict(zip(names, self.styles, strict=True))
        self._style_by_phrase = {
            fold(text): style
            for style in self.styles
            for text in (style, *(related.text for related in atlas()[style].corefs))
        }
        self._network = EmojiNetwork(len(self.styles), WIDTHS)
        self._network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        self._network.eval()

    def question(self, label: str | None) -> slice:
        """The styles or the things, whichever `label` belongs to; the styles for None."""
        count = len(self.styles)
        return slice(count) if label is None or label in self.styles else slice(count, len(self.classes))

    @torch.inference_mode()
    def probs(self, images: list[Image]) -> torch.Tensor:
        """Class probabilities, shape (B, K), those of the styles first; images are scaled to 64 pixels."""
        return torch.cat([self._network(pixels(images)).softmax(1), self._things.probs(images)], 1)

    @torch.inference_mode()
    def features(self, images: list[Image]) -> torch.Tensor:
        """Features of both networks before their last layers, shape (B, 128 + 256)."""
        return torch.cat([self._network.features(pixels(images)), self._things.features(images)], 1)

    def class_of(self, text: str) -> str | None:
        """The class that a phrase names: the style of "a cat, noto style" or "a cat in noto style", else the thing."""
        for part in (text, re.split(r",| in ", text)[-1]):
            if style := self._style_of(part):
                return style
        return self._things.class_of(text)

    def _style_of(self, text: str) -> str | None:
        """The style that a phrase of the atlas names, or a style's name once the fillers are removed."""
        words = [word for word in fold(text).split() if word not in FILLERS]
        return self._style_by_phrase.get(fold(text)) or self._style_by_words.get(" ".join(words))
