"""Models of transformers as judges, and any image classifier among them, with the labels it was trained on.

A label may have several names, as those of ImageNet do ("tabby, tabby cat"). A phrase names a label if it is one of
its names; a name shared by several labels ("crane", the bird and the machine) names none of them.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from PIL.Image import Image

from crce.backbones.loading import pick_device
from crce.concepts.concept_set import fold
from crce.errors import ConfigError, ModelError, first_line
from crce.judges.judge import without_article


Part = TypeVar("Part")


class TransformersJudge:
    """The shared part of judges of a `kind` that run a model of transformers: a folder or a repository on the Hub.

    `load` is `from_pretrained` of its class; where no model is named, the message suggests the `example`.
    """

    threshold = 0.0

    def __init__(self, kind: str, load: Callable[[str], Any], model: str, device: str, example: str) -> None:
        from transformers import AutoImageProcessor

        if not model:
            raise ConfigError(f"The judge {kind} needs a model: {kind}:MODEL, e.g. {kind}:{example}.")
        network = load_part(load, model, "the weights")
        self.name = f"{kind}:{model}"
        commit = getattr(network.config, "_commit_hash", None)  # on the Hub
        self.version = str(commit)[:12] if commit else "local"
        self.hash = hash_weights(network)
        self.classes: list[str] = []
        self._device = pick_device(device)
        self._network: Any = network.float().eval().to(self._device)
        self._processor: Any = load_part(AutoImageProcessor.from_pretrained, model, "the image processor")

    def _pixels(self, images: list[Image]) -> torch.Tensor:
        """The model's input, shape (B, 3, h, w)."""
        rgb = [image.convert("RGB") for image in images]
        return self._processor(images=rgb, return_tensors="pt").pixel_values.to(self._device)


def load_part(load: Callable[[str], Part], model: str, what: str) -> Part:
    """Load one part of a judge's model with a `from_pretrained` of transformers; `what` names it in messages."""
    try:
        return load(model)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ModelError(
            f"Cannot load {what} of the judge's model {model!r}: {first_line(error)}. "
            "Give a folder that save_pretrained wrote, or the name of a repository on the Hub."
        ) from error


def hash_weights(model: torch.nn.Module) -> str:
    """First 16 hex digits of the SHA-256 of all weights with their names, types and shapes, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


class ClassifierJudge(TransformersJudge):
    """A model with `id2label` that transformers loads as an image classifier."""

    def __init__(self, model: str = "", *, device: str = "auto") -> None:
        """Load a folder, or a repository on the Hub, e.g. "google/vit-base-patch16-224"."""
        from transformers import AutoModelForImageClassification

        load = AutoModelForImageClassification.from_pretrained
        super().__init__("classifier", load, model, device, "google/vit-base-patch16-224")
        config = self._network.config
        labels = [str(config.id2label[i]) for i in range(config.num_labels)]
        if all(label == f"LABEL_{i}" for i, label in enumerate(labels)):
            raise ModelError(
                f"The classifier {model!r} does not name its {len(labels)} labels. Write their names into id2label of "
                "its config.json, or use another model."
            )
        self.classes, self._class_by_name = _read_labels(labels)

    def probs(self, images: list[Image]) -> torch.Tensor:
        """Class probabilities, shape (B, K)."""
        return self._forward(images).logits.softmax(1).cpu()

    def features(self, images: list[Image]) -> torch.Tensor:
        """The last hidden state, averaged over the image, shape (B, D)."""
        state = self._forward(images, output_hidden_states=True).hidden_states[-1]  # (B, T, D) or (B, D, h, w)
        return (state.mean(1) if state.ndim == 3 else state.flatten(2).mean(2)).cpu()

    def class_of(self, text: str) -> str | None:
        """The label that has a phrase among its names, with or without an article; None for other phrases."""
        folded = fold(text)
        return self._class_by_name.get(folded) or self._class_by_name.get(without_article(folded))

    @torch.inference_mode()
    def _forward(self, images: list[Image], **options: bool) -> Any:
        return self._network(pixel_values=self._pixels(images), **options)


def _read_labels(labels: list[str]) -> tuple[list[str], dict[str, str]]:
    """A distinct class for each label, and the class by each name that only one label has."""
    names = [[name.strip() for name in label.split(",") if name.strip()] or [label] for label in labels]
    counted = Counter(fold(name) for own in names for name in {fold(n): n for n in own}.values())
    # A class is called by its first name, and by all of them where another label shares the first.
    classes = [own[0] if counted[fold(own[0])] == 1 else ", ".join(own) for own in names]
    repeated = Counter(classes)
    classes = [c if repeated[c] == 1 else f"{c} ({i})" for i, c in enumerate(classes)]
    named = zip(classes, names, strict=True)
    by_name = {fold(name): c for c, own in named for name in own if counted[fold(name)] == 1}
    return classes, {fold(c): c for c in classes} | by_name
