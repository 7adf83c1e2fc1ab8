"""Who judges which group of a prompt set, and what is asked about each of its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crce.concepts import ConceptSet
from crce.evaluate.groups import NO_JUDGE, Group, Others, Prompt, spread
from crce.evaluate.observe import Observer
from crce.evaluate.prompt_sets.protocol import Domain, PromptGroup, PromptSet
from crce.judges.judge import CalibratedJudge, Detector, OpenJudge
from crce.sampling.image_cache import FOLDER


if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from crce.evaluate.observe import ModelPair, ModelSide
    from crce.judges import Judge
    from crce.training import Erasure

CALIBRATION = 24  # pictures on each side, at most, that tell what a judge's answers are worth


@dataclass(frozen=True)
class AskedGroup(Group):
    """A group of a prompt set, with the judge's class for each of its prompts.

    Attributes:
        title: what it is, in words.
        measures: "erased" or "kept".
    """

    title: str = ""
    measures: str = "erased"

    @property
    def erasing(self) -> bool:
        return self.measures == "erased"


class Picker:
    """A judge that picks from some of its classes only, as the classifiers of a benchmark do.

    Args:
        judge: gives the probabilities; these are shared out among the classes that are left.
        classes: those classes, at least one.
    """

    def __init__(self, judge: Judge, classes: Sequence[str]) -> None:
        self.name, self.version, self.hash = judge.name, judge.version, judge.hash
        self.threshold = judge.threshold
        self.classes = list(classes)
        self._judge = judge
        self._places = [judge.classes.index(name) for name in classes]

    def probs(self, images: list[Image]) -> torch.Tensor:
        """Probabilities of the classes that are left, shape (B, K)."""
        left = self._judge.probs(images)[:, self._places]
        return left / left.sum(1, keepdim=True).clamp_min(1e-12)

    def class_of(self, text: str) -> str | None:
        """The class that a phrase names, if it is one of those that are left."""
        found = self._judge.class_of(text)
        return found if found in self.classes else None


@dataclass
class View:
    """The groups that one judge sees, with the two models' pictures as it sees them.

    Attributes:
        domain: the kind that it picks from; None where it is not bound to one.
        observer: the judge, and its words.
        groups: the groups.
        within: those groups that ask about parts of pictures of the target.
    """

    domain: str | None
    observer: Observer
    groups: list[AskedGroup]
    within: frozenset[str] = frozenset()

    @property
    def judge(self) -> Judge | None:
        return self.observer.judge

    def see(self, models: ModelPair, texts: set[str]) -> None:
        """Judge the pictures of these texts, which must have been drawn; what the judge says is kept."""
        prompts = [p for group in self.groups for p in group.prompts if p.text in texts]
        for side in (models.base, models.erased):
            self.observer.words(side, prompts)

    def to_calibrate(self) -> tuple[list[Prompt], list[Prompt]]:
        """Prompts of which it is known what they show, and prompts with what they don't show; none for most judges."""
        if not isinstance(self.judge, CalibratedJudge):
            return [], []
        asked = [(group, p) for group in self.groups for p in group.prompts if p.expected is not None]
        target = next((p.expected for group, p in asked if group.erasing), None)
        of_target = {p.text for group, p in asked if group.erasing or group.name in self.within}
        classes = list(dict.fromkeys(str(p.expected) for _, p in asked))
        absent = []
        for prompt in spread([p for _, p in asked if p.text not in of_target], self.known_pictures):
            other = target or classes[(classes.index(str(prompt.expected)) + 1) % len(classes)]
            if other != prompt.expected:
                absent.append(Prompt(prompt.text, expected=other))
        return spread([p for _, p in asked], self.known_pictures), absent

    @property
    def known_pictures(self) -> int:
        """How many pictures on each side the judge is calibrated with, at most."""
        return getattr(self.judge, "known_pictures", CALIBRATION)

    def calibrate(self, base: ModelSide) -> dict[str, Any] | None:
        """Let the judge learn from the base model's pictures what its answers are worth; None for most judges."""
        if not isinstance(self.judge, CalibratedJudge):
            return None
        shown, absent = (spread(_pictures(base, prompts), self.known_pictures) for prompts in self.to_calibrate())
        return self.judge.calibrate(shown, absent)


def make_views(
    prompt_set: PromptSet,
    groups: Sequence[PromptGroup],
    judge: Judge | None,
    erasure: Erasure,
    concepts: ConceptSet,
    threshold: float,
) -> list[View]:
    """One view for every domain of the set, in the order of its groups.

    Args:
        prompt_set: the set.
        groups: its groups, as far as they are drawn.
        judge: the judge, not yet told what it is about.
        erasure: the run.
        concepts: what of it is measured.
        threshold: the lowest probability at which the judge's word counts.
    """
    views = []
    for domain in dict.fromkeys(group.domain for group in groups):
        own = [group for group in groups if group.domain == domain]
        seeing = _about(judge, domain, own, erasure)
        target_class = _class_of(seeing, [concepts.target, *([prompt_set.concept] if prompt_set.concept else [])])
        if domain and seeing and not isinstance(seeing, Detector):
            seeing = _picker(seeing, domain, target_class if any(g.measures == "erased" for g in own) else None)
        elsewhere = Others([c for c in erasure.sets if c is not concepts], seeing, crce=erasure.config.crce)
        asked = [_ask(group, seeing, concepts.target, target_class, elsewhere) for group in own]
        within = frozenset(group.name for group in own if group.within)
        views.append(View(domain.kind if domain else None, Observer(seeing, threshold), asked, within))
    return views


def _about(judge: Judge | None, domain: Domain | None, groups: Sequence[PromptGroup], erasure: Erasure) -> Any:
    """The judge, told what the run and the set are about where it has no classes of its own."""
    if not isinstance(judge, OpenJudge):
        return judge
    one_word = not isinstance(judge, Detector)
    rows = [row for group in groups if not (group.within and one_word) for row in group.rows]
    phrases = [names[0] for names in domain.names] if domain else [row.phrases[0] for row in rows if row.phrases]
    phrases = list(dict.fromkeys(phrases))
    folder = erasure.folder / FOLDER
    if domain and domain.kind == "style":
        return judge.about([*erasure.sets, *(ConceptSet(phrase, kind="style") for phrase in phrases)], folder)
    return judge.about(erasure.sets, folder, unrelated=phrases)


def _picker(judge: Judge, domain: Domain, target_class: str | None) -> Judge:
    """The judge bound to the things of a domain; as it was where it knows too few, since it would have no choice."""
    known = [c for names in domain.names if (c := _class_of(judge, names))]
    classes = list(dict.fromkeys([*([target_class] if target_class else []), *known]))
    return Picker(judge, classes) if len(classes) > 1 and 2 * len(known) >= len(domain.names) else judge


def _ask(
    group: PromptGroup, judge: Judge | None, target: str, target_class: str | None, elsewhere: Others
) -> AskedGroup:
    """A group with the judge's classes; a prompt that asks the same thing twice counts once."""
    one_word = group.within and judge is not None and not isinstance(judge, Detector)
    prompts = []
    for row in group.rows:
        if not row.phrases:
            left_out = None if target_class else _no_class(target, judge)
            prompts.append(Prompt(row.text, expected=target_class, left_out=left_out))
            continue
        own = _class_of(judge, row.phrases)
        reason = elsewhere.erased(row.phrases[0])
        if judge is None:
            reason = NO_JUDGE
        elif one_word:
            reason = f"the {judge.name} judge has one word for a picture, and this asks about parts of it"
        elif own is None:
            reason = reason or _no_class(row.phrases[0], judge)
        elif own == target_class:
            reason = reason or f'the judge has one class, "{own}", for it and for the target'
        else:
            reason = reason or elsewhere.takes_for_target(own)
        prompts.append(Prompt(row.text, expected=None if reason else own, left_out=reason))
    distinct = tuple(dict.fromkeys(prompts))
    return AskedGroup(group.name, distinct, len(distinct), group.title, group.measures)


def _class_of(judge: Judge | None, names: Sequence[str]) -> str | None:
    return next((c for name in names if (c := judge.class_of(name))), None) if judge else None


def _no_class(text: str, judge: Judge | None) -> str:
    return f'the {judge.name} judge has no class for "{text}"' if judge else NO_JUDGE


def _pictures(side: ModelSide, prompts: Sequence[Prompt]) -> list[tuple[Image, str]]:
    """The pictures of prompts, each with what it is asked about."""
    rows = side.images([p.text for p in prompts])
    asked = zip(prompts, rows, strict=True)
    return [(image, str(p.expected)) for p, row in asked for image in row if image is not None]
