"""What a judge is: who says which of its classes a picture shows. A judge never sees a generated picture in training.

Most judges answer with one of their classes. Some are asked about one class at a time (`Detector`), some answer more
than one question (`JointJudge`), some take their classes from the concept sets of the run (`OpenJudge`), and some can
do more than name a picture (`FeatureJudge`, `TextJudge`, `CalibratedJudge`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable


if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from crce.concepts import ConceptSet

ARTICLES = ("a ", "an ", "the ")
UNSURE = "unsure"  # the word for a picture of which the judge is less certain than its threshold
BATCH = 64


class Judge(Protocol):
    """Says which of its classes a picture shows.

    Attributes:
        name: how it is chosen on the command line.
        version: changes whenever its weights or its classes do.
        hash: first 16 hex digits of the SHA-256 of its weights, or why there is none.
        classes: the words it can answer with.
        threshold: the lowest probability at which its word counts; 0 where its best word always does.
    """

    name: str
    version: str
    hash: str
    classes: list[str]
    threshold: float

    def probs(self, images: list[Image]) -> torch.Tensor:
        """Class probabilities, shape (B, K)."""
        ...

    def class_of(self, text: str) -> str | None:
        """The class that a phrase names, or None when it names none of them."""
        ...


@runtime_checkable
class Detector(Protocol):
    """A judge that tells of each class by itself whether a picture shows it; its `probs` need not sum to one."""

    def scores(self, images: list[Image], label: str) -> torch.Tensor:
        """The probability that each picture shows the class `label`, shape (B,)."""
        ...


@runtime_checkable
class JointJudge(Protocol):
    """A judge of more than one question, such as what is drawn and how; its `probs` sum to one over each."""

    def question(self, label: str | None) -> slice:
        """Which of its classes answer what the class `label` answers; those of the first question where it is None."""
        ...


@runtime_checkable
class OpenJudge(Protocol):
    """A judge without classes of its own: it takes those that a run is about."""

    def about(self, sets: Sequence[ConceptSet], folder: Path | None = None, *, unrelated: Sequence[str] = ()) -> Judge:
        """This judge with the classes of some concept sets.

        Args:
            sets: what a run erased and kept.
            folder: where it may keep what it was told, so that it need not ask again; None keeps nothing.
            unrelated: what is drawn beside them.
        """
        ...


@runtime_checkable
class FeatureJudge(Protocol):
    """A judge that can say how near two pictures are."""

    def features(self, images: list[Image]) -> torch.Tensor:
        """What it sees before it decides, shape (B, D)."""
        ...


@runtime_checkable
class TextJudge(Protocol):
    """A judge that can compare a picture with any text."""

    def alignment(self, images: list[Image], texts: Sequence[str]) -> torch.Tensor:
        """The cosine of each picture with its text, shape (B,)."""
        ...


@runtime_checkable
class CalibratedJudge(Protocol):
    """A judge whose answers are given a probability by pictures of which the answer is known.

    One that wants more than 24 pictures on each side says how many, in `known_pictures`.
    """

    def calibrate(
        self, shown: Sequence[tuple[Image, str]], absent: Sequence[tuple[Image, str]]
    ) -> dict[str, Any] | None:
        """Learn what an answer is worth.

        Args:
            shown: pictures of the base model with the class they were asked for.
            absent: pictures of the base model with a class they were not asked for.

        Returns:
            What was learned, for the report; None if there were no pictures on one side.
        """
        ...


def name_pictures(judge: Judge, images: Sequence[Image], expected: str | None, threshold: float) -> list[str]:
    """The judge's word for each picture.

    Args:
        judge: names them.
        images: B pictures.
        expected: the class the pictures should (or should no longer) show. A detector is asked about this class, and
            about nothing where it is None, a joint judge about the question that it answers; other judges see all
            their classes at once.
        threshold: the lowest probability at which a word counts.

    Returns:
        A class of the judge, "unsure", or "no CLASS", for each picture.
    """
    words: list[str] = []
    for start in range(0, len(images), BATCH):
        part = list(images[start : start + BATCH])
        if isinstance(judge, Detector):
            if expected is None:
                words += [UNSURE] * len(part)
            else:
                shown = judge.scores(part, expected).tolist()
                words += [expected if score >= threshold else f"no {expected}" for score in shown]
        else:
            answers = judge.question(expected) if isinstance(judge, JointJudge) else slice(None)
            classes = judge.classes[answers]
            best, place = judge.probs(part)[:, answers].max(1)
            named = zip(place.tolist(), best.tolist(), strict=True)
            words += [classes[k] if p >= threshold else UNSURE for k, p in named]
    return words


def without_article(phrase: str) -> str:
    """The phrase less the article that it begins with."""
    return next((phrase[len(a) :] for a in ARTICLES if phrase.lower().startswith(a)), phrase)


def describe_judge(judge: Judge | None, threshold: float) -> dict[str, Any] | None:
    """The judge as report.json names it."""
    if judge is None:
        return None
    return {
        "name": judge.name,
        "version": judge.version,
        "hash": judge.hash,
        "threshold": threshold,
        "classes": len(judge.classes),
        "class_list": list(judge.classes),
    }
