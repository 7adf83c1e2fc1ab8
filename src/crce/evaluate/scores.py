"""Groups with the judge's answers: what was recognised, what was left out, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crce.evaluate.intervals import Measure
from crce.evaluate.prompts import NO_JUDGE, Prompt, PromptGroup
from crce.evaluate.stats import ALPHA, MEASURES, Recognition, measure, recognise, summarise


Words = Sequence[str | None]
"""The judge's word for each image of a prompt; None for an image that could not be generated."""

MEASURED = ("target", "coref_held_out", "retain_held_out", "unrelated")  # the groups of MEASURES

NO_PHRASES = {
    "target": "there is no target",
    "coref": "the concept set has no corefs for training",
    "coref_held_out": "the concept set has no held-out corefs",
    "retain": "the concept set has no retains for training",
    "retain_held_out": "the concept set has no held-out retains",
    "unrelated": "there is nothing unrelated to draw",
}


@dataclass(frozen=True)
class ScoredPrompt:
    """A prompt with the judge's words for the images of each side, "base" and "erased"; None without a judge."""

    prompt: Prompt
    words: Mapping[str, Words] | None
    recognition: Recognition | None
    left_out: str | None

    @property
    def text(self) -> str:
        return self.prompt.text

    @property
    def n(self) -> int:
        """Images that count: those that the base model did not fail to generate."""
        return self.recognition.base.size if self.recognition else 0

    @property
    def base(self) -> int:
        """Recognised images of the base model."""
        return int(self.recognition.base.sum()) if self.recognition else 0

    @property
    def erased(self) -> int:
        """Recognised images of the erased model."""
        return int(self.recognition.erased.sum()) if self.recognition else 0

    @property
    def failed(self) -> int:
        """Images that count and that the erased model failed to generate."""
        pairs = zip(self.words["base"], self.words["erased"], strict=True) if self.words else ()
        return sum(b is not None and a is None for b, a in pairs)

    def as_json(self) -> dict[str, Any]:
        counts = {"base": self.base, "erased": self.erased, "n": self.n}
        return {
            "text": self.text,
            "certainty": self.prompt.certainty,
            "class": self.prompt.expected,
            **(counts if self.recognition else dict.fromkeys(counts)),
            "left_out": self.left_out,
            "words": self.words and {side: list(words) for side, words in self.words.items()},
        }


@dataclass(frozen=True)
class ScoredGroup:
    """A group with its scored prompts and the share of them that is erased (or kept)."""

    group: PromptGroup
    prompts: tuple[ScoredPrompt, ...]
    measure: Measure

    @property
    def name(self) -> str:
        return self.group.name

    @property
    def scored(self) -> list[ScoredPrompt]:
        """The prompts that count."""
        return [p for p in self.prompts if p.left_out is None]

    @property
    def recognitions(self) -> list[Recognition]:
        return [p.recognition for p in self.scored if p.recognition is not None]

    @property
    def missing(self) -> str:
        """Why nothing of the group could be measured, in words."""
        if not self.prompts:
            return NO_PHRASES[self.name]
        reasons = {p.left_out for p in self.prompts}
        return f"none of its {len(self.prompts)} prompts can be scored" if len(reasons) > 1 else str(reasons.pop())

    def as_json(self) -> dict[str, Any]:
        return {
            "measures": self.group.measures,
            **self.measure.as_json(),
            "available": len(self.prompts) + self.group.unused,
            "left_out": len(self.prompts) - len(self.scored),
            "prompts": [p.as_json() for p in self.prompts],
        }


def score_group(
    group: PromptGroup,
    base_words: Sequence[Words] | None,
    erased_words: Sequence[Words] | None,
    probe_words: Sequence[Words] | None = None,
    alpha: float = ALPHA,
) -> ScoredGroup:
    """Score a group by the judge's words for each prompt's images, and for those that say if it counts; or None."""
    if base_words is None or erased_words is None:
        prompts = tuple(ScoredPrompt(p, None, None, p.left_out or NO_JUDGE) for p in group.prompts)
    else:
        paired = zip(group.prompts, base_words, erased_words, probe_words or [()] * len(group.prompts), strict=True)
        prompts = tuple(_score(p, b, a, probe, group.erasing, alpha) for p, b, a, probe in paired)
    scored = ScoredGroup(group, prompts, Measure(None, None, None, 0))
    numbers, _ = measure(scored.recognitions, erasing=group.erasing, reason=scored.missing)
    return ScoredGroup(group, prompts, numbers)


def summarise_groups(groups: Mapping[str, ScoredGroup]) -> dict[str, Measure]:
    """The headline numbers: those of `MEASURED`, H and H3."""
    own = [groups[name] for name in MEASURED]
    reasons = dict(zip(MEASURES, (group.missing for group in own), strict=True))
    return summarise([group.recognitions for group in own], reasons=reasons)


def _score(
    prompt: Prompt, base_words: Words, erased_words: Words, probe_words: Words, erasing: bool, alpha: float
) -> ScoredPrompt:
    words = {"base": base_words, "erased": erased_words, **({"probe": probe_words} if probe_words else {})}
    if prompt.expected is None:
        return ScoredPrompt(prompt, words, None, prompt.left_out)
    recognition = recognise(base_words, erased_words, prompt.expected, erasing=erasing, probe_words=probe_words)
    recognition = replace(recognition, alpha=alpha)
    seen, n, left_out = int(recognition.seen.sum()), recognition.seen.size, None
    if not recognition.base.size or n == 0:
        left_out = "the base model failed to draw it"
    elif not recognition.drawable:
        often = f"in only {seen} of {n} pictures" if seen else f"in none of {n} pictures"
        often += " of other seeds" if probe_words else ""
        left_out = f'the base model draws it as "{prompt.expected}" {often}'
    return ScoredPrompt(prompt, words, recognition, left_out)
