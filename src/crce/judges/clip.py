"""CLIP as a zero-shot judge, with the classes of the concept sets.

Every phrase of a class is put into several templates, whose embeddings are averaged (Radford et al., "Learning
Transferable Visual Models From Natural Language Supervision", 2021, section 3.1.4). The logit of a class is the
largest logit of its phrases, and the probabilities are a softmax over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch.nn.functional import normalize
from typing_extensions import Self

from crce.concepts import ConceptSet
from crce.errors import ModelError
from crce.judges.classifier import TransformersJudge, load_part
from crce.judges.concept_classes import ConceptSetJudge, concept_classes
from crce.judges.judge import Known, judge_images, without_article


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


class ClipJudge(TransformersJudge, ConceptSetJudge):
    """CLIP, SigLIP, or another model of transformers that embeds images and texts in one space."""

    def __init__(self, model: str = "", *, device: str = "auto") -> None:
        """Load a folder, or a repository on the Hub, e.g. "openai/clip-vit-base-patch32"."""
        from transformers import AutoModel, AutoTokenizer

        super().__init__("clip", AutoModel.from_pretrained, model, device, "openai/clip-vit-base-patch32")
        needed = ("get_image_features", "get_text_features", "logit_scale")
        if missing := [name for name in needed if not hasattr(self._network, name)]:
            raise ModelError(
                f"The model {model!r} is a {type(self._network).__name__}, which has no {missing[0]}. "
                "The judge clip takes CLIP, SigLIP and similar models; for a classifier use classifier:MODEL."
            )
        self._tokenizer: Any = load_part(AutoTokenizer.from_pretrained, model, "the tokenizer")
        self._texts = torch.empty(0, 0)  # embeddings of all phrases in the order of the classes, shape (P, D)

    def about(self, sets: Sequence[ConceptSet], folder: Path | None = None, *, unrelated: Sequence[str] = ()) -> Self:
        """A copy with the classes of concept sets; it stores nothing in the folder."""
        judge = self._with(concept_classes(sets, unrelated))
        judge._texts = torch.cat([judge._phrases(name) for name in judge.classes])
        return judge

    @torch.inference_mode()
    def probs(self, images: list[Image]) -> torch.Tensor:
        """Class probabilities, shape (B, K)."""
        self._check_classes()
        cosines = self.features(images) @ self._texts.T  # (B, P)
        sizes = [len(self._known.phrases[name]) for name in self.classes]
        nearest = torch.stack([part.amax(1) for part in cosines.split(sizes, 1)], 1)  # (B, K)
        return (nearest * self._network.logit_scale.exp().cpu()).softmax(1)

    def calibrate(self, shown: Known, absent: Known) -> dict[str, Any] | None:
        """Set the threshold: of those with the largest J (Youden 1950), the lowest.

        J is the share of `shown` that it calls by the class, less that of `absent`, so that no more is read into an
        image than into those of the base model. Where it confuses nothing, its best word counts.
        """
        if not shown or not absent:
            return None
        sides = {"shown": shown, "absent": absent}
        named: dict[str, list[float]] = {side: [] for side in sides}  # probabilities where the class is its best word
        for side, (image, label) in ((side, pair) for side, pairs in sides.items() for pair in pairs):
            (said,) = judge_images(self, [image], label, 0.0)
            named[side] += [said.probability] if said.word == label else []

        def counts(side: str, least: float) -> int:
            return sum(p >= least for p in named[side])

        def youden(least: float) -> float:
            return counts("shown", least) / len(shown) - counts("absent", least) / len(absent)

        self.threshold = max([0.0, *sorted(named["shown"])], key=youden)
        found = {side: counts(side, self.threshold) for side in sides}
        answers = {side: {"recognised": k, "not": len(sides[side]) - k} for side, k in found.items()}
        return {**answers, "threshold": self.threshold}

    @torch.inference_mode()
    def features(self, images: list[Image]) -> torch.Tensor:
        """Embeddings of unit length, shape (B, D)."""
        output = self._network.get_image_features(pixel_values=self._pixels(images))
        return normalize(output.pooler_output, dim=1).cpu()

    def alignment(self, images: list[Image], texts: Sequence[str]) -> torch.Tensor:
        """The cosine similarity of each image and its text, shape (B,)."""
        return (self.features(images) * self._embed(list(texts))).sum(1)

    def _phrases(self, name: str) -> torch.Tensor:
        """One embedding of unit length for each phrase of a class, shape (P, D)."""
        templates = BY_KIND.get(self._known.kinds[name], TEMPLATES)
        texts = [t.format(without_article(phrase)) for phrase in self._known.phrases[name] for t in templates]
        return normalize(self._embed(texts).unflatten(0, (-1, len(templates))).mean(1), dim=1)

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> torch.Tensor:
        """Embeddings of unit length, shape (B, D)."""
        config = self._network.config
        # SigLIP was trained on texts of one length and does not mask the padding.
        siglip = config.model_type.startswith("siglip")
        tokens = self._tokenizer(
            texts,
            padding="max_length" if siglip else True,
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._device)
        mask = {} if siglip else {"attention_mask": tokens["attention_mask"]}
        output = self._network.get_text_features(input_ids=tokens["input_ids"], **mask)
        return normalize(output.pooler_output, dim=1).cpu()
