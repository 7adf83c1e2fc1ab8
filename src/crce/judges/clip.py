"""CLIP as a judge: the class whose words are nearest to the picture.

The classes are those of the concept set. Every phrase of a class is put into several templates, whose embeddings are
averaged (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021, section
3.1.4); the logit of a class is the largest of its phrases', and the probabilities are a softmax over the classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import normalize

from crce.backbones.loading import pick_device
from crce.errors import ConfigError, ModelError
from crce.judges.concept_classes import ConceptClasses, concept_classes
from crce.judges.judge import without_article
from crce.judges.weights import hash_weights, load_part, revision


if TYPE_CHECKING:
    from PIL.Image import Image

    from crce.concepts import ConceptSet

TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "a close-up photo of a {}.",
    "a bad photo of the {}.",
    "a photo of the small {}.",
    "a photo of the large {}.",
    "art of the {}.",
    "a drawing of a {}.",
)
NAMED = ("a photo of {}.", "a picture of {}.", "a portrait of {}.", "a drawing of {}.", "{}.")
STYLES = ("a painting in the style of {}.", "an artwork by {}.", "a picture in {} style.", "art in the manner of {}.")
BY_KIND = {"person": NAMED, "character": NAMED, "style": STYLES, "explicit": NAMED}


class ClipJudge:
    """CLIP, SigLIP, or another model of transformers with one space for pictures and texts.

    Attributes:
        classes: those of the concept sets it was last told about, see `about`; none before.
    """

    threshold = 0.0

    def __init__(self, model: str, *, device: str = "auto") -> None:
        """Load a model.

        Args:
            model: a folder, or the name of a repository on the Hub, e.g. "openai/clip-vit-base-patch32".
            device: where it runs.

        Raises:
            ConfigError: no model is named.
            ModelError: it can't be loaded, or has no common space for pictures and texts.
        """
        if not model:
            raise ConfigError("The judge clip needs a model: clip:MODEL, e.g. clip:openai/clip-vit-base-patch32.")
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        network = load_part(AutoModel.from_pretrained, model, "the weights")
        missing = [n for n in ("get_image_features", "get_text_features", "logit_scale") if not hasattr(network, n)]
        if missing:
            raise ModelError(
                f"The model {model!r} is a {type(network).__name__}, which has no {missing[0]}. "
                "The judge clip takes CLIP, SigLIP and their like; for a classifier use classifier:MODEL."
            )
        self.name = f"clip:{model}"
        self.version = revision(network)
        self.hash = hash_weights(network)
        self.classes: list[str] = []
        self._device = pick_device(device)
        self._network: Any = network.float().eval().to(self._device)
        self._tokenizer: Any = load_part(AutoTokenizer.from_pretrained, model, "the tokenizer")
        self._processor: Any = load_part(AutoImageProcessor.from_pretrained, model, "the image processor")
        self._known = ConceptClasses({}, {})
        self._texts = torch.empty(0, 0)  # of all phrases in the order of the classes, shape (P, D)

    def about(
        self, sets: Sequence[ConceptSet], folder: Path | None = None, *, unrelated: Sequence[str] = ()
    ) -> ClipJudge:
        """This judge with the classes of some concept sets; it keeps nothing in the folder."""
        judge = copy.copy(self)
        judge._known = concept_classes(sets, unrelated)
        judge.classes = judge._known.names
        judge._texts = torch.cat([judge._phrases(name) for name in judge.classes])
        return judge

    @torch.inference_mode()
    def probs(self, images: list[Image]) -> torch.Tensor:
        """Class probabilities, shape (B, K)."""
        if not self.classes:
            raise ConfigError(
                f"The judge {self.name} knows no classes yet. Tell it what the run is about, with about."
            )
        cosines = self.features(images) @ self._texts.T  # (B, P)
        sizes = [len(self._known.phrases[name]) for name in self.classes]
        nearest = torch.stack([part.amax(1) for part in cosines.split(sizes, 1)], 1)  # (B, K)
        return (nearest * self._network.logit_scale.exp().cpu()).softmax(1)

    @torch.inference_mode()
    def features(self, images: list[Image]) -> torch.Tensor:
        """Embeddings of unit length, shape (B, D)."""
        pixels = self._processor(images=[image.convert("RGB") for image in images], return_tensors="pt").pixel_values
        return normalize(_vectors(self._network.get_image_features(pixel_values=pixels.to(self._device))), dim=1).cpu()

    def alignment(self, images: list[Image], texts: Sequence[str]) -> torch.Tensor:
        """The cosine of each picture with its text, shape (B,)."""
        return (self.features(images) * self._embed(list(texts))).sum(1)

    def class_of(self, text: str) -> str | None:
        """The class that a phrase of the concept sets means; None for other phrases."""
        return self._known.class_of(text)

    def _phrases(self, name: str) -> torch.Tensor:
        """One direction for each phrase of a class, shape (P, D)."""
        templates = BY_KIND.get(self._known.kinds[name], TEMPLATES)
        texts = [t.format(without_article(phrase)) for phrase in self._known.phrases[name] for t in templates]
        return normalize(self._embed(texts).unflatten(0, (-1, len(templates))).mean(1), dim=1)

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> torch.Tensor:
        """Embeddings of unit length, shape (B, D)."""
        config = self._network.config
        # SigLIP was trained on texts of one length, and reads the padding too.
        siglip = config.model_type.startswith("siglip")
        tokens = self._tokenizer(
            texts,
            padding="max_length" if siglip else True,
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._device)
        mask = {} if siglip else {"attention_mask": tokens["attention_mask"]}
        return normalize(_vectors(self._network.get_text_features(input_ids=tokens["input_ids"], **mask)), dim=1).cpu()


def _vectors(output: Any) -> torch.Tensor:
    """The embeddings in what a model of transformers gives, which from version 5 on is wrapped."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output
