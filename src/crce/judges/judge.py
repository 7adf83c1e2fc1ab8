"""The interface of a judge, which says which of its classes an image shows. No judge is trained on generated images.

Most judges answer with one of their classes. Optional interfaces: a `Detector` is asked about one class at a time, a
`JointJudge` answers more than one question, an `OpenJudge` takes its classes from the concept sets of the run, and
`FeatureJudge`, `TextJudge` and `CalibratedJudge` can do more than classify.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from crce.errors import ModelError


if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from crce.concepts import ConceptSet

Known: TypeAlias = "Sequence[tuple[Image, str]]"  # images, each with a class
ARTICLES = ("a ", "an ", "the ")
UNSURE = "unsure"  # the answer where the best class lies below the threshold
BATCH = 64


class Judge(Protocol):
    """Says which of its classes an image shows.

    Attributes:
        name: how it is chosen on the command line.
        version: changes whenever its weights or its classes do.
        hash: first 16 hex digits of the SHA-256 of its weights, or why there is none.
        classes: its possible answers.
        threshold: the lowest probability at which an answer counts; 0 where the best class always does.
    """

    name: str
    version: str
    hash: str
    classes: list[str]
    threshold: float

    def probs(self, images: list[Image]) -> torch.Tensor:
        """Class probabilities, shape (B, K)."""

    def class_of(self, text: str) -> str | None:
        """The class that a phrase names, or None if it names none of them."""


@runtime_checkable
class Detector(Protocol):
    """A judge that scores each class independently; its `probs` need not sum to one."""

    def scores(self, images: list[Image], label: str) -> torch.Tensor:
        """The probability that each image shows the class `label`, shape (B,)."""


@runtime_checkable
class JointJudge(Protocol):
    """A judge of several questions, such as content and style; its `probs` sum to one over the classes of each."""

    def question(self, label: str | None) -> slice:
        """The classes of the question that the class `label` answers; of the first question for None."""


@runtime_checkable
class OpenJudge(Protocol):
    """A judge without classes of its own, which takes them from the concept sets of a run."""

    def about(self, sets: Sequence[ConceptSet], folder: Path | None = None, *, unrelated: Sequence[str] = ()) -> Judge:
        """A copy of this judge with the classes of concept sets.

        Args:
            sets: the concept sets of a run.
            folder: where it may store its answers, so that it need not ask again; None stores nothing.
            unrelated: phrases generated beside those of the sets.
        """


@runtime_checkable
class FeatureJudge(Protocol):
    """A judge whose features measure how similar two images are."""

    def features(self, images: list[Image]) -> torch.Tensor:
        """The features that its classes are predicted from, shape (B, D)."""


@runtime_checkable
class TextJudge(Protocol):
    """A judge that compares an image with any text."""

    def alignment(self, images: list[Image], texts: Sequence[str]) -> torch.Tensor:
        """The cosine similarity of each image and its text, shape (B,)."""


@runtime_checkable
class CalibratedJudge(Protocol):
    """A judge that learns the probabilities of its answers from images whose correct answer is known.

    It gets at most 24 images of each side, or as many as its attribute `known_pictures` says.
    """

    def calibrate(self, shown: Known, absent: Known) -> dict[str, Any] | None:
        """Learn the probability of each answer.

        Args:
            shown: images of the base model, each with the class in its prompt.
            absent: images of the base model, each with a class that is not in its prompt.

        Returns:
            The calibration, for the report; None where one side has no images.
        """


class JudgedImage(NamedTuple):
    """The judge's answer for one image: a class, "unsure" or "no CLASS"; None where generating the image failed.

    The probability is that of the expected class, rounded to six digits; 0 where there is no image or no such class.
    """

    word: str | None
    probability: float


def judge_images(
    judge: Judge, images: Sequence[Image | None], expected: str | None, threshold: float
) -> list[JudgedImage]:
    """The judge's answer for each of B images; None marks one that could not be generated.

    `expected` is the class that the images should (or should no longer) show. A detector is asked about this class
    only, and about nothing where it is None; a joint judge answers the question that the class belongs to; others
    choose among all their classes. An answer counts from the probability `threshold` on.
    """
    present = [image for image in images if image is not None]
    answers: list[JudgedImage] = []
    for start in range(0, len(present), BATCH):
        part = present[start : start + BATCH]
        if isinstance(judge, Detector):
            answers += _detected(judge, part, expected, threshold)
            continue
        among = judge.question(expected) if isinstance(judge, JointJudge) else slice(None)
        classes, probs = judge.classes[among], judge.probs(part)
        best, place = probs[:, among].max(1)
        words = [classes[k] if p >= threshold else UNSURE for k, p in zip(place.tolist(), best.tolist(), strict=True)]
        wanted = [0.0] * len(part)
        if expected in judge.classes:
            wanted = probs[:, judge.classes.index(expected)].tolist()
        answers += [JudgedImage(word, round(p, 6)) for word, p in zip(words, wanted, strict=True)]
    following = iter(answers)
    return [JudgedImage(None, 0.0) if image is None else next(following) for image in images]


def name_pictures(
    judge: Judge, images: Sequence[Image | None], expected: str | None, threshold: float
) -> list[str | None]:
    """The judge's word for each of B images; see `judge_images`."""
    return [answer.word for answer in judge_images(judge, images, expected, threshold)]


def _detected(judge: Detector, images: list[Image], expected: str | None, threshold: float) -> list[JudgedImage]:
    if expected is None:
        return [JudgedImage(UNSURE, 0.0)] * len(images)
    scores = judge.scores(images, expected).tolist()
    return [JudgedImage(expected if s >= threshold else f"no {expected}", round(s, 6)) for s in scores]


def without_article(phrase: str) -> str:
    """The phrase without the article that it begins with."""
    return next((phrase[len(a) :] for a in ARTICLES if phrase.lower().startswith(a)), phrase)


def missing_package(judge: str, package: str, why: object) -> ModelError:
    """The error of a judge whose package is not installed."""
    extra = f"pip install 'crce[{judge}]'"
    return ModelError(f"The judge {judge} needs the package {package} ({why}). Install it: {extra}.")


def describe_judge(judge: Judge | None, threshold: float, *, class_list: bool = True) -> dict[str, Any] | None:
    """A judge as reports and attack results describe it, with or without its class list; None for no judge."""
    if judge is None:
        return None
    own = {"name": judge.name, "version": judge.version, "hash": judge.hash, "threshold": threshold}
    return {**own, "classes": len(judge.classes), **({"class_list": list(judge.classes)} if class_list else {})}
