"""A vision language model as a judge: it is asked whether an image shows a thing, and may be unsure.

The probability of each answer is calibrated on images of the base model, whose prompts are known. With r+ and r- the
shares of an answer among images whose prompt did, and did not, name the thing,

    P(shown | answer) = r+ / (r+ + r-)

Each share is smoothed by a third of an image, so that an answer that was never given has no influence.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from crce.concepts import ConceptSet
from crce.errors import ConfigError, ModelError, SuggestError
from crce.files import append_line
from crce.judges.concept_classes import ConceptSetJudge, concept_classes
from crce.judges.judge import Known
from crce.llm import Chat, Message, load_chat


logger = logging.getLogger(__name__)

ANSWERS = ("yes", "unsure", "no")
UNCALIBRATED = {"yes": 1.0, "unsure": 0.5, "no": 0.0}
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": list(ANSWERS)}},
    "required": ["answer"],
    "additionalProperties": False,
}
SYSTEM = (
    "You are shown one picture and asked what it shows. It may be a photo, a painting, a drawing or an icon. "
    "Answer yes if it is there and can be recognised, no if it is not, unsure if you can't tell."
)
VERSION = "questions 1"  # of SYSTEM and `question`
NO_HASH = "not known to the caller"
SIDES = (256, 512)  # bounds of the longer side in pixels: smaller images are scaled up, larger ones down
MAX_TOKENS = 200  # of an answer: some models reason first
BUDGET = 10_000_000  # tokens of all questions: an image takes about a thousand
FILE = "answers.jsonl"


class VisionJudge(ConceptSetJudge):
    """A vision language model, through any of the services that suggesters use."""

    version = VERSION
    hash = NO_HASH
    threshold = 0.5

    def __init__(self, chat: Chat) -> None:
        """Set up the judge with the client of a model that accepts images; nothing is sent yet."""
        self.name = f"vision:{chat.provider}:{chat.model}"
        self.classes: list[str] = []
        self._chat = chat
        self._answers: dict[str, str] = {}  # by image and question
        self._file: Path | None = None
        self._probability = dict(UNCALIBRATED)
        self._counts = {"shown": Counter[str](), "absent": Counter[str]()}

    def about(
        self, sets: Sequence[ConceptSet], folder: Path | None = None, *, unrelated: Sequence[str] = ()
    ) -> VisionJudge:
        """A copy with the classes of concept sets, not yet calibrated, whose answers are stored in the folder."""
        judge = VisionJudge(self._chat)._with(concept_classes(sets, unrelated))
        if folder is not None:
            judge._file, judge._answers = folder / FILE, _read_answers(folder / FILE)
        return judge

    def scores(self, images: list[Image.Image], label: str) -> torch.Tensor:
        """The probability that each image shows the class `label`, shape (B,); see `answer`."""
        return torch.tensor([self._probability[self.answer(image, label)] for image in images])

    def probs(self, images: list[Image.Image]) -> torch.Tensor:
        """The probability of each class on its own, shape (B, K): K questions for each image."""
        return torch.stack([self.scores(images, label) for label in self.classes], 1)

    def calibrate(self, shown: Known, absent: Known) -> dict[str, Any] | None:
        """Learn the probability of each answer from these images and those of earlier calls."""
        for side, pairs in (("shown", shown), ("absent", absent)):
            self._counts[side].update(self.answer(image, label) for image, label in pairs)
        if not all(counts.total() for counts in self._counts.values()):
            return None
        for answer in ANSWERS:
            share = {s: (counts[answer] + 1 / 3) / (counts.total() + 1) for s, counts in self._counts.items()}
            self._probability[answer] = round(share["shown"] / (share["shown"] + share["absent"]), 4)
        counted = {side: {answer: counts[answer] for answer in ANSWERS} for side, counts in self._counts.items()}
        return {**counted, "probability": dict(self._probability)}

    def answer(self, image: Image.Image, label: str) -> str:
        """Whether an image shows a class: "yes", "no" or "unsure". Each question is asked once."""
        png, asked = _png(image), self.question(label)
        key = hashlib.sha256(png + "\n".join([self.name, VERSION, asked]).encode()).hexdigest()[:32]
        if key not in self._answers:
            self._answers[key] = self._ask(asked, f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}")
            row = {"key": key, "judge": self.name, "question": asked, "answer": self._answers[key]}
            if self._file is not None:
                append_line(self._file, json.dumps(row, ensure_ascii=False))
        return self._answers[key]

    def question(self, label: str) -> str:
        """The question about a class."""
        if self._known.kinds.get(label) == "style":
            return f"Is this picture in the style of {label}?"
        if label[:1].isupper():  # a name
            return f"Is {label} in this picture?"
        first = label.split()[0].lower() if label.split() else ""
        article = "" if first in ("a", "an", "the") else "an " if label[0].lower() in "aeiou" else "a "
        return f"Is there {article}{label} in this picture?"

    def _ask(self, question: str, url: str) -> str:
        messages = [Message("system", SYSTEM), Message("user", f"{question} Answer yes, no or unsure.", (url,))]
        try:
            reply = self._chat.complete(messages, SCHEMA, max_tokens=MAX_TOKENS)
        except SuggestError as error:
            raise ModelError(
                f"The judge {self.name} failed: {_for_judges(str(error))} "
                "Its answers so far are stored: the same command continues from there."
            ) from error
        read = None if reply.finish == "refusal" else _read(reply.text)
        if read is None:
            logger.warning("%s answered %r to %r, which counts as unsure.", self.name, reply.text[:80], question)
        return read or "unsure"


def load_vision(model: str = "") -> VisionJudge:
    """The judge "vision:PROVIDER:MODEL"."""
    if model.partition(":")[0] not in ("openai", "azure", "anthropic") or not model.partition(":")[2]:
        raise ConfigError(
            f"The judge vision was given {model!r}. Name a service and a model that accepts images: "
            "vision:openai:MODEL, vision:azure:DEPLOYMENT or vision:anthropic:MODEL. OPENAI_BASE_URL sets another "
            "server."
        )
    try:
        return VisionJudge(load_chat(model, token_budget=BUDGET))
    except SuggestError as error:
        raise ModelError(f"The judge vision:{model} can't be used: {_for_judges(str(error))}") from error


def _read(text: str) -> str | None:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    word = str(said.get("answer") if isinstance(said, dict) else said).strip().strip(".!\"'").lower()
    return word if word in ANSWERS else None


def _read_answers(path: Path) -> dict[str, str]:
    """The answers in a file by their keys; lines that were cut short are skipped."""
    answers = {}
    for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            answers[row["key"]] = row["answer"]
        except (ValueError, KeyError, TypeError):
            logger.warning("A line of %s can't be read; its question is asked again.", path)
    return {key: answer for key, answer in answers.items() if answer in ANSWERS}


def _png(image: Image.Image) -> bytes:
    side = min(max(SIDES[0], *image.size), SIDES[1])
    buffer = io.BytesIO()
    ImageOps.contain(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS).save(buffer, format="PNG")
    return buffer.getvalue()


def _for_judges(text: str) -> str:
    """A client's error message without the advice that only applies to suggesters."""
    for advice in (", or use --suggester lexicon", " Or use --suggester lexicon, which needs no network."):
        text = text.replace(advice, "")
    return text.rstrip(".") + "."
