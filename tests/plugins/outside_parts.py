"""A package from outside crce that brings one part of each kind, as small as they can be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from crce.attacks.prompts import AttackedPrompt
from crce.attacks.table import AttackSpec
from crce.attacks.text import TextAttack
from crce.backbones.unet import UNetBackbone
from crce.evaluate.prompt_sets import files
from crce.export.formats import Exported, ExportFormat
from crce.files import write_text
from crce.methods.gradient import GradientMethod
from crce.methods.table import Method
from crce.suggest.candidates import Candidate


class ToNothing(GradientMethod):
    """A concept is predicted as the empty prompt is."""

    def erase_target(self, eps_base, eps_concept, eps_null, config):
        return eps_null.expand_as(eps_concept)


class GuidedBackbone(UNetBackbone):
    """Stable Diffusion in a pipeline that crce does not know."""

    models = "Stable Diffusion with perturbed attention"


class Brightness:
    """A judge by the mean of the pixels."""

    name, version, hash, threshold = "brightness", "1", "none", 0.0
    classes = ["cat", "dog"]

    def probs(self, images):
        bright = torch.tensor([sum(image.convert("L").resize((8, 8)).getdata()) / (64 * 255) for image in images])
        return torch.stack([bright, 1 - bright], 1)

    def class_of(self, text):
        return text if text in self.classes else None


class Parrot:
    """A suggester that knows the same two phrases for everything."""

    name = "parrot"

    def propose(self, request):
        return [
            Candidate(f"big {request.target}", "coref", 1.0, self.name, "what it always says"),
            Candidate("parrot", "retain", 1.0, self.name, "what it always says"),
        ]


class Shout(TextAttack):
    """The prompt in capitals."""

    name = "shout"
    default_steps = 1

    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterator[str]:
        yield prompt.text.upper()


def read_prompts(folder: Path, concepts, concept):
    """A prompt set: the lines of prompts.txt in a folder."""
    return files.load(folder / "prompts.txt", concepts, concept)


def write_list(erasure, path, *, rank, dtype):
    """An export format: the names of what was erased."""
    write_text(path, "\n".join(concepts.target for concepts in erasure.sets))
    return Exported(path, "list")


METHOD = Method("outside_parts:ToNothing", "predicts a concept as the empty prompt")
ATTACK = AttackSpec("outside_parts:Shout", "the prompt in capitals", "a prompt")
FORMAT = ExportFormat("the names of what was erased", write_list, suffix=".txt")
