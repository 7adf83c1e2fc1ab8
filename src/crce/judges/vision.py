"""A vision language model as a judge: it is asked whether a picture shows a thing, and may be unsure.

What its answers are worth is learned from the base model's pictures, of which it is known what they were asked to
show. With r+ and r- the shares of an answer among pictures that were, and were not, asked to show the thing,

    P(shown | answer) = r+ / (r+ + r-)

each share smoothed by a third of a picture, so that an answer that was never given says nothing.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import io
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from crce.errors import ConfigError, ModelError, RunError, SuggestError
from crce.judges.concept_classes import ConceptClasses, concept_classes
from crce.llm import Chat, Message, load_chat


if TYPE_CHECKING:
    from crce.concepts import ConceptSet

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
SIDES = (256, 512)  # pixels of the longer side that is sent: small pictures are scaled up, large ones down
MAX_TOKENS = 200  # of an answer: some models think aloud first
BUDGET = 10_000_000  # tokens of all questions: a picture takes about a thousand
FILE = "answers.jsonl"


class VisionJudge:
    """A language model that sees pictures, over any of the services that suggesters use.

    Attributes:
        classes: those of the concept sets it was last told about, see `about`; none before.
    """

    version = VERSION
    hash = NO_HASH
    threshold = 0.5

    def __init__(self, chat: Chat) -> None:
        """Nothing is sent yet.

        Args:
            chat: who is asked; its model must take pictures.
        """
        self.name = f"vision:{chat.provider}:{chat.model}"
        self.classes: list[str] = []
        self._chat = chat
        self._known = ConceptClasses({}, {})
        self._answers: dict[str, str] = {}  # by picture and question
        self._file: Path | None = None
        self._worth = dict(UNCALIBRATED)
        self._counts = {"shown": Counter[str](), "absent": Counter[str]()}

    def about(
        self, sets: Sequence[ConceptSet], folder: Path | None = None, *, unrelated: Sequence[str] = ()
    ) -> VisionJudge:
        """This judge with the classes of some concept sets, and with the answers kept in the folder."""
        judge = copy.copy(self)
        judge._known = concept_classes(sets, unrelated)
        judge.classes = judge._known.names
        judge._worth = dict(UNCALIBRATED)
        judge._counts = {"shown": Counter(), "absent": Counter()}
        judge._file = None if folder is None else folder / FILE
        judge._answers = {} if judge._file is None else _read_answers(judge._file)
        return judge

    def scores(self, images: list[Image.Image], label: str) -> torch.Tensor:
        """The probability that each picture shows the class `label`, shape (B,).

        Raises:
            ModelError: the model can't be asked.
        """
        return torch.tensor([self._worth[self.answer(image, label)] for image in images])

    def probs(self, images: list[Image.Image]) -> torch.Tensor:
        """The probability of every class by itself, shape (B, K): K questions for each picture."""
        return torch.stack([self.scores(images, label) for label in self.classes], 1)

    def class_of(self, text: str) -> str | None:
        """The class that a phrase of the concept sets means; None for other phrases."""
        return self._known.class_of(text)

    def calibrate(
        self, shown: Sequence[tuple[Image.Image, str]], absent: Sequence[tuple[Image.Image, str]]
    ) -> dict[str, Any] | None:
        """Learn what each answer is worth, from these pictures and those of earlier calls."""
        for side, pairs in (("shown", shown), ("absent", absent)):
            self._counts[side].update(self.answer(image, label) for image, label in pairs)
        if not all(counts.total() for counts in self._counts.values()):
            return None
        for answer in ANSWERS:
            share = {s: (counts[answer] + 1 / 3) / (counts.total() + 1) for s, counts in self._counts.items()}
            self._worth[answer] = round(share["shown"] / (share["shown"] + share["absent"]), 4)
        return {
            **{side: {answer: counts[answer] for answer in ANSWERS} for side, counts in self._counts.items()},
            "probability": dict(self._worth),
        }

    def answer(self, image: Image.Image, label: str) -> str:
        """Whether a picture shows a class: "yes", "no" or "unsure"; each question is asked once.

        Raises:
            ModelError: the model can't be asked.
        """
        png, asked = _png(image), self.question(label)
        key = hashlib.sha256(png + "\n".join([self.name, VERSION, asked]).encode()).hexdigest()[:32]
        if key not in self._answers:
            url = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
            self._answers[key] = self._ask(asked, url)
            self._keep(key, asked)
        return self._answers[key]

    def question(self, label: str) -> str:
        """What is asked about a class."""
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
                f"The judge {self.name} can't be asked: {_for_judges(str(error))} "
                "What it answered so far is kept: the same command goes on from there."
            ) from error
        read = None if reply.finish == "refusal" else _read(reply.text)
        if read is None:
            logger.warning("%s answered %r to %r; that counts as unsure.", self.name, reply.text[:80], question)
        return read or "unsure"

    def _keep(self, key: str, question: str) -> None:
        if self._file is None:
            return
        row = {"key": key, "judge": self.name, "question": question, "answer": self._answers[key]}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise RunError(f"Cannot write {self._file}: {error.strerror or error}. Free some space.") from error


def load_vision(model: str, device: str = "auto") -> VisionJudge:
    """The judge "vision:PROVIDER:MODEL"; it runs elsewhere, whatever the device.

    Raises:
        ConfigError: no model of a service is named.
        ModelError: a package or a key is missing.
    """
    if model.partition(":")[0] not in ("openai", "azure", "anthropic") or not model.partition(":")[2]:
        raise ConfigError(
            f"The judge vision was given {model!r}. Name a service and a model that takes pictures: "
            "vision:openai:MODEL, vision:azure:DEPLOYMENT or vision:anthropic:MODEL; OPENAI_BASE_URL names another "
            "server."
        )
    try:
        return VisionJudge(load_chat(model, token_budget=BUDGET))
    except SuggestError as error:
        raise ModelError(f"The judge vision:{model} can't be asked: {_for_judges(str(error))}") from error


def _read(text: str) -> str | None:
    """The answer in what a model said, or None."""
    try:
        said = json.loads(text)
        said = said.get("answer") if isinstance(said, dict) else said
    except ValueError:
        said = text
    word = str(said).strip().strip(".!\"'").lower()
    return word if word in ANSWERS else None


def _read_answers(path: Path) -> dict[str, str]:
    """The answers of a file by their keys; a line that was not written to its end is passed over."""
    answers = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            answers[row["key"]] = row["answer"]
        except (ValueError, KeyError, TypeError):
            logger.warning("%s holds a line that can't be read; its question is asked again.", path)
    return {key: answer for key, answer in answers.items() if answer in ANSWERS}


def _png(image: Image.Image) -> bytes:
    """The picture as it is sent."""
    shown = image.convert("RGB")
    longest = max(shown.size)
    scale = min(max(1.0, SIDES[0] / longest), SIDES[1] / longest)
    if scale != 1:
        shown = shown.resize((round(shown.width * scale), round(shown.height * scale)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return buffer.getvalue()


def _for_judges(text: str) -> str:
    """An error of a client without the way out that only suggesters have."""
    for advice in (", or use --suggester lexicon", " Or use --suggester lexicon, which needs no network."):
        text = text.replace(advice, "")
    return text.rstrip(".") + "."
