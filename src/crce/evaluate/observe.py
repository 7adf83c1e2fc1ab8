"""Groups of prompts x {base, erased} -> judged words: what a judge is asked, its calibration, and its answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL.Image import Image

from crce import demo
from crce.concepts import ConceptSet
from crce.evaluate.model_pair import ModelPair, ModelSide, SamplingPlan
from crce.evaluate.prompt_sets.concept_set import OtherSets, common_unrelated, make_groups
from crce.evaluate.prompt_sets.prompt_set import PromptSet, sample, seeds_of
from crce.evaluate.prompts import NO_JUDGE, UNJUDGED, Domain, Prompt, PromptGroup, no_class, spread
from crce.evaluate.settings import PROBE_SEED, ConceptSetSettings, PromptSetSettings, probe_images, target_images
from crce.judges import Judge, choose_judge, load_judge
from crce.judges.judge import CalibratedJudge, Detector, JointJudge, OpenJudge, describe_judge, name_pictures
from crce.sampling.image_cache import FOLDER
from crce.sampling.pictures import Picture
from crce.training import Erasure


CALIBRATION = 24  # images on each side, at most, that a judge is calibrated with
CHUNK = 32  # texts whose images are in memory at once

Answers = dict[tuple[str, str, str | None], list[str | None]]
"""By side or "probe", text and the class that the judge was asked about: its word for every image, or None."""

Images = dict[str, tuple[list[Picture], list[Picture]]]
"""By text the base and the erased model's images."""


class RestrictedJudge:
    """A judge that picks from some of its classes only, as the classifiers of a benchmark do.

    Its probabilities are normalised over these classes, of which there is at least one.
    """

    def __init__(self, judge: Judge, classes: Sequence[str]) -> None:
        self.name, self.version, self.hash, self.threshold = judge.name, judge.version, judge.hash, judge.threshold
        self.classes, self._judge = list(classes), judge
        self._places = [judge.classes.index(name) for name in classes]

    def probs(self, images: list[Image]) -> torch.Tensor:
        """Probabilities of the remaining classes, shape (B, K)."""
        left = self._judge.probs(images)[:, self._places]
        return left / left.sum(1, keepdim=True).clamp_min(1e-12)

    def class_of(self, text: str) -> str | None:
        """The class that a phrase names, if it is one of the remaining ones."""
        found = self._judge.class_of(text)
        return found if found in self.classes else None


@dataclass
class Questions:
    """Groups of prompts, and the judge that is asked about them. No image is judged twice."""

    groups: Sequence[PromptGroup]  # with the judge's class of every prompt
    judge: Judge | None  # None where nobody judges
    threshold: float | None  # from which its word counts; None takes the judge's own, once it is calibrated
    domain: str | None = None  # the kind of things that it picks from; None where it is not bound to one
    sampled: bool = False  # whether images are generated for the calibration, so that there should be few
    words: Answers = field(default_factory=dict)  # questions about several targets of a run share them

    @property
    def prompts(self) -> list[Prompt]:
        return [prompt for _, prompt in self.listed]

    @property
    def listed(self) -> list[tuple[PromptGroup, Prompt]]:
        """Every prompt with its group."""
        return [(group, prompt) for group in self.groups for prompt in group.prompts]

    def ask(self, models: ModelPair, prompts: Sequence[Prompt]) -> None:
        """Ask about the images of prompts, which must be in memory where they were not judged before."""
        if self.judge is None:
            return
        for side in models.sides:
            for prompt in prompts:
                key = self.place(side.name, prompt)
                if key not in self.words:
                    (images,) = side.images([prompt.text])
                    self.words[key] = name_pictures(self.judge, images, key[2], self._least)

    def answers(self, side: ModelSide, prompts: Sequence[Prompt]) -> list[list[str | None]] | None:
        """The judge's word for every image of each prompt; None without a judge."""
        return None if self.judge is None else [self.words[self.place(side.name, prompt)] for prompt in prompts]

    def known_images(self) -> tuple[list[Prompt], list[Prompt]]:
        """For the calibration prompts whose images show what they are asked about, and prompts whose images don't."""
        if not isinstance(self.judge, CalibratedJudge):
            return [], []
        asked = [(group, p) for group, p in self.listed if p.expected is not None]
        target = next((p.expected for group, p in asked if group.erasing), None)
        of_target = {p.text for group, p in asked if group.erasing or group.within}
        classes = list(dict.fromkeys(str(p.expected) for _, p in asked))
        most = self._most if self.sampled else None
        absent = []
        for prompt in spread([p for _, p in asked if p.text not in of_target], most):
            other = target or classes[(classes.index(str(prompt.expected)) + 1) % len(classes)]
            absent += [Prompt(prompt.text, expected=other)] if other != prompt.expected else []
        return spread([p for _, p in asked], most), absent

    def calibrate(self, base: ModelSide) -> dict[str, Any]:
        """Calibrate the judge on the base model's images: {"calibration": ...}; for most judges {}."""
        if not isinstance(self.judge, CalibratedJudge):
            return {}
        sides = []
        for prompts in self.known_images():
            asked = zip(prompts, base.images([p.text for p in prompts]), strict=True)
            pairs = [(image, str(p.expected)) for p, row in asked for image in row if image is not None]
            sides.append(spread(pairs, self._most))
        return {"calibration": self.judge.calibrate(*sides)}

    def describe(self) -> dict[str, Any] | None:
        """The judge as report.json names it."""
        return describe_judge(self.judge, self._least)

    @property
    def _least(self) -> float:
        return self.threshold if self.threshold is not None else self.judge.threshold if self.judge else 0.0

    @property
    def _most(self) -> int:
        return getattr(self.judge, "known_pictures", CALIBRATION)

    def place(self, side: str, prompt: Prompt) -> tuple[str, str, str | None]:
        """Where the judge's words for a prompt's images by one side are."""
        # The answer of a detector or a joint judge depends on the question; others say the same to all who ask.
        return side, prompt.text, prompt.expected if isinstance(self.judge, Detector | JointJudge) else None


def observe(models: ModelPair, questions: Sequence[Questions], texts: Sequence[str], shown: set[str]) -> Images:
    """Generate and judge every text, a few at a time; the images of those in `shown` are returned."""
    images: Images = {}
    for start in range(0, len(texts), CHUNK):
        part = texts[start : start + CHUNK]
        before, after = models.images(part)
        for question in questions:
            question.ask(models, [p for p in question.prompts if p.text in part])
        rows = zip(part, before, after, strict=True)
        images |= {text: (above, below) for text, above, below in rows if text in shown}
        models.forget(part)
    return images


def concept_set_questions(
    erasure: Erasure, settings: ConceptSetSettings
) -> tuple[list[Questions], SamplingPlan, ConceptSetSettings]:
    """The questions about each concept set of a run; sets share the judge and its answers.

    Returns:
        The questions, the images that they are about, and the settings with the numbers that depend on whether there
        is a judge.
    """
    model = erasure.info["model"]
    bundled = load_judge() if model in demo.MODELS else None
    others = [[o for o in erasure.sets if o is not c] for c in erasure.sets]
    unrelated = [common_unrelated(c, rest, bundled) for c, rest in zip(erasure.sets, others, strict=True)]
    things, folder = [text for texts in unrelated for text in texts], erasure.folder / FOLDER
    judge = choose_judge(settings.judge, model, erasure.sets, unrelated=things, folder=folder, device=settings.device)
    if judge is None and settings.phrases_per_group is None:
        unrelated = [texts[:UNJUDGED] for texts in unrelated]
    settings = settings.filled(judged=judge is not None)
    words: Answers = {}
    limit, crce = settings.phrases_per_group, erasure.config.crce
    groups = [
        make_groups(c, judge, limit, rest, crce=crce, common=common)
        for c, rest, common in zip(erasure.sets, others, unrelated, strict=True)
    ]
    questions = [Questions(own, judge, settings.threshold, words=words) for own in groups]
    alone = frozenset(p.text for own in questions for group, p in own.listed if group.name == "unrelated")
    count = settings.images_per_prompt or 1
    seeds, many = (range(settings.seed, settings.seed + n) for n in (count, target_images(count)))
    more = {c.target: many for c in erasure.sets if judge is not None and len(many) > count}
    first = settings.seed + PROBE_SEED
    probes = range(first, first + (probe_images(count) if judge else 0))
    plan = SamplingPlan(seeds, *settings.sampling(erasure.sampling), erasure.config.scenes, alone, more, probes)
    return questions, plan, settings


def prompt_set_questions(
    prompt_set: PromptSet, erasure: Erasure, concepts: ConceptSet, settings: PromptSetSettings
) -> tuple[list[Questions], SamplingPlan]:
    """The questions about a prompt set, one `Questions` for every domain, and the images that they are about.

    Of groups with more prompts than the limit a sample is taken. `concepts` is the set of the run that is measured.
    """
    groups = [sample(group, settings.limit, settings.seed) for group in prompt_set.groups]
    judge = choose_judge(settings.judge, erasure.info["model"], erasure.sets, device=settings.device)
    target = concepts.target
    questions = []
    for domain in dict.fromkeys(group.domain for group in groups):
        own = [group for group in groups if group.domain == domain]
        asked = _informed(judge, domain, own, erasure)
        target_class = _class_of(asked, [target, *([prompt_set.concept] if prompt_set.concept else [])])
        if domain and asked and not isinstance(asked, Detector):
            known = [c for names in domain.names if (c := _class_of(asked, names))]
            classes = [target_class] if target_class and any(g.erasing for g in own) else []
            classes = list(dict.fromkeys([*classes, *known]))
            if len(classes) > 1 and 2 * len(known) >= len(domain.names):  # else it has too little choice
                asked = RestrictedJudge(asked, classes)
        elsewhere = OtherSets([c for c in erasure.sets if c is not concepts], asked, crce=erasure.config.crce)
        with_classes = [_with_classes(group, asked, target, target_class, elsewhere) for group in own]
        kind = domain.kind if domain else None
        questions.append(Questions(with_classes, asked, settings.threshold, kind, sampled=True))
    seeds = seeds_of(groups, settings.images_per_prompt, settings.seed)
    return questions, SamplingPlan([settings.seed], *settings.sampling(erasure.sampling), own_seeds=seeds)


def _informed(judge: Judge | None, domain: Domain | None, groups: Sequence[PromptGroup], erasure: Erasure) -> Any:
    """The judge; one without classes of its own with those of the run and the groups."""
    if not isinstance(judge, OpenJudge):
        return judge
    one_word = not isinstance(judge, Detector)
    prompts = [p for group in groups if not (group.within and one_word) for p in group.prompts]
    phrases = [names[0] for names in domain.names] if domain else [p.phrases[0] for p in prompts if p.phrases]
    phrases = list(dict.fromkeys(phrases))
    folder = erasure.folder / FOLDER
    if domain and domain.kind == "style":
        return judge.about([*erasure.sets, *(ConceptSet(phrase, kind="style") for phrase in phrases)], folder)
    return judge.about(erasure.sets, folder, unrelated=phrases)


def _with_classes(
    group: PromptGroup, judge: Judge | None, target: str, target_class: str | None, elsewhere: OtherSets
) -> PromptGroup:
    """A group with the judge's classes; a prompt that asks the same thing twice counts once."""
    one_word = group.within and judge is not None and not isinstance(judge, Detector)
    prompts = []
    for prompt in group.prompts:
        own, reason = target_class, None if target_class else no_class(target, judge)
        if prompt.phrases:
            own = _class_of(judge, prompt.phrases)
            reason = elsewhere.left_out(prompt.phrases[0], own, target_class)
            if judge is None:
                reason = NO_JUDGE
            elif one_word:
                reason = f"the {judge.name} judge has one word for a picture, and this asks about parts of it"
        prompts.append(Prompt(prompt.text, expected=None if reason else own, left_out=reason))
    return replace(group, prompts=tuple(dict.fromkeys(prompts)))


def _class_of(judge: Judge | None, names: Sequence[str]) -> str | None:
    return next((c for name in names if (c := judge.class_of(name))), None) if judge else None
