"""The verdict in plain words, on one target or several: what was erased, what leaked, what broke, what to try next."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crce.concepts.concept_set import fold
from crce.concepts.faults import listed
from crce.evaluate.intervals import Measure
from crce.evaluate.prompts import ERASING, KEEPING, concept_group
from crce.evaluate.scores import ScoredGroup, ScoredPrompt
from crce.evaluate.stats import measure
from crce.methods.table import is_solved


ERASED_WELL = 0.9  # erased share from which the target counts as gone
ERASED_PARTLY = 0.5
LEAK_SHARE = 0.25  # a coref leaks when this much of what the base model drew of it is still drawn as the target
BROKEN_SHARE = 0.75  # a phrase broke when no more than this much of what the base model drew of it is left
ADVISED = 3  # phrases of each side to train next: held-out ones that are trained no longer measure
NAMED = 6  # phrases named in a sentence before "and N more"

Tone = Literal["good", "bad", "unknown", "next"]
Groups = Mapping[str, ScoredGroup]
"""The scored groups of a target's concept set by name."""


@dataclass(frozen=True)
class Point:
    """One line of the verdict, and the command that does what it says, if there is one."""

    label: str
    tone: Tone
    text: str
    command: str | None = None


@dataclass(frozen=True)
class PromptChange:
    """A prompt that leaked or broke: of n images by each model, how many are recognised.

    `target` is that of its concept set, if the run has several.
    """

    text: str
    group: str
    base: int
    erased: int
    n: int
    target: str | None = None

    def as_json(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name != "target"}
        return own if self.target is None else {"target": self.target, **own}

    @property
    def left(self) -> float:
        """Recognised images after, as a share of those before."""
        return self.erased / self.base if self.base else float(self.group not in ERASING or self.erased > 0)


@dataclass(frozen=True)
class Verdict:
    """The numbers in words."""

    points: tuple[Point, ...]  # line by line
    leaks: tuple[PromptChange, ...] = ()  # corefs that the erased model still draws as the target, worst first
    broken: tuple[PromptChange, ...] = ()  # what should be kept and is no longer drawn as itself, worst first

    @property
    def text(self) -> str:
        return "\n".join(f"{p.label}: {p.text}" for p in self.points)


def percent(share: float) -> str:
    """A share in [0, 1] as "92 %", with a no-break space; rounded from the digits that report.json has."""
    return f"{100 * round(share, 4):.0f}\N{NO-BREAK SPACE}%"


def pool(targets: Sequence[Groups]) -> dict[str, ScoredGroup]:
    """The groups of all targets together; what several sets hold with the same meaning counts once."""
    pooled = {}
    for name in ERASING + KEEPING:
        prompts: dict[tuple[str, str | None, bool], ScoredPrompt] = {}
        for prompt in (p for groups in targets for p in groups[name].prompts):
            prompts.setdefault((fold(prompt.text), prompt.prompt.expected, prompt.left_out is None), prompt)
        group = concept_group(name, [p.prompt for p in prompts.values()])
        pooled[name] = ScoredGroup(group, tuple(prompts.values()), Measure(None, None, None, 0))
    return pooled


def make_verdict(targets: Sequence[Groups], config: Mapping[str, Any], run: Path) -> Verdict:
    """Put the numbers into words; the advice changes the run in the folder `run`, whose recipe is `config`."""
    groups = pool(targets)
    one = _target(targets[0]).text if len(targets) == 1 else None
    if all(p.words is None for group in groups.values() for p in group.prompts):
        gone = f'"{one}" is' if one else "the targets are"
        look = f"look at the pictures whether {gone} gone and what should be kept is as before."
        text = f"no judge scored the pictures, so there are no numbers; {look}"
        return Verdict((Point("Not scored", "unknown", text),))
    leaks, broken = _worst(targets, ERASING[1:]), _worst(targets, KEEPING)
    points = [
        _target_point(targets),
        _leak_point(one, sum(len(groups[name].scored) for name in ERASING[1:]), leaks),
        _broken_point(groups, broken),
    ]
    if advice := _advice(targets, leaks, broken, config):
        command = shlex.join(["crce", "erase", "--like", str(run), *(word for _, words in advice for word in words)])
        points.append(Point("Try next", "next", " ".join(sentence for sentence, _ in advice), command))
    return Verdict(tuple(points), leaks, broken)


def _target(groups: Groups) -> ScoredPrompt:
    return groups["target"].prompts[0]


def _worst(targets: Sequence[Groups], names: Sequence[str]) -> tuple[PromptChange, ...]:
    """Corefs that leaked, or phrases to keep that broke, worst first; each once, a coref once for each class."""
    erasing = names[0] in ERASING
    found: dict[tuple[str, str | None], PromptChange] = {}

    def badness(change: PromptChange) -> float:
        return change.left if erasing else -change.left

    for groups in targets:
        target = _target(groups)
        owner, own_class = target.text if len(targets) > 1 else None, target.prompt.expected if erasing else None
        scored = [(name, p) for name in names for p in groups[name].scored]
        changes = [PromptChange(p.text, name, p.base, p.erased, p.n, owner) for name, p in scored]
        for change in sorted(changes, key=badness, reverse=True):
            if badness(change) >= (LEAK_SHARE if erasing else -BROKEN_SHARE):
                found.setdefault((fold(change.text), own_class), change)
    return tuple(sorted(found.values(), key=badness, reverse=True))


def _target_point(targets: Sequence[Groups]) -> Point:
    """The line about the targets themselves: the counts of a single one, the shares of several."""
    one, total = _target(targets[0]) if len(targets) == 1 else None, len(targets)
    measures = [(groups["target"].measure, _target(groups)) for groups in targets]
    missing = listed([f'"{prompt.text}" ({m.reason})' for m, prompt in measures if m.value is None], NAMED)
    shares = [(m.value, prompt) for m, prompt in measures if m.value is not None]
    if not shares:
        text = f'"{one.text}": {measures[0][0].reason}.' if one else f"none of the {total} targets: {missing}."
        return Point("Not measured", "unknown", text)
    gone = [prompt for share, prompt in shares if share >= ERASED_WELL]
    left = sorted(((share, prompt) for share, prompt in shares if share < ERASED_WELL), key=lambda pair: pair[0])
    partly = bool(gone) or left[-1][0] >= ERASED_PARTLY
    label = "Erased" if not left else "Partly erased" if partly else "Not erased"
    are = "is" if len(gone) == 1 else "are"
    if one:
        how = {"Erased": "is gone", "Partly erased": "is only partly gone", "Not erased": "is still drawn"}[label]
        text = f'"{one.text}" {how}: {one.erased} of {one.n} pictures still show it ({one.base} of {one.n} before)'
        if one.failed:
            text += f"; {one.failed} of them failed to be drawn, which counts as still showing it"
    elif left:
        still = listed([_words(prompt) for _, prompt in left], NAMED)
        text = f"of {total} targets, {len(gone) or 'none'} {are} gone; still drawn: {still}"
    else:
        who = f"of {total} targets, {len(gone)} {are}" if missing else f"all {total} targets are"
        text = f"{who} gone: {listed([_words(prompt) for prompt in gone], NAMED)}"
    unknown = f" Not measured: {missing}." if missing else ""
    return Point(label, "bad" if left else "good", f"{text}.{unknown}")


def _leak_point(one: str | None, checked: int, leaks: Sequence[PromptChange]) -> Point:
    if not checked:
        return Point("Leaks unknown", "unknown", f"no other name of {'the' if one else 'a'} target could be measured.")
    whose = f'"{one}"' if one else "its target" if len(leaks) < 2 else "their targets"
    names = f"{checked} other name{'' if checked == 1 else 's'}"
    if not leaks:
        return Point("No leaks", "good", f"of {names}, none still draws {whose}.")
    verb = "draws" if len(leaks) == 1 else "draw"
    named = listed([_words(change, change.target) for change in leaks], NAMED)
    return Point("Leaked", "bad", f"of {names}, {len(leaks)} still {verb} {whose}: {named}.")


def _broken_point(groups: Groups, broken: Sequence[PromptChange]) -> Point:
    checked = len({fold(p.text) for name in KEEPING for p in groups[name].scored})
    if not checked:
        return Point("Damage unknown", "unknown", "nothing that should be kept could be measured.")
    things = f"{checked} thing{'' if checked == 1 else 's'}"
    far = measure(groups["unrelated"].recognitions, erasing=False)[0].value
    more = "" if far is None else f" Of what is unrelated, {percent(far)} is kept."
    if not broken:
        return Point("Nothing broke", "good", f"of {things} to keep, all are still drawn.{more}")
    named = listed([_words(change) for change in broken], NAMED)
    return Point("Broke", "bad", f"of {things} to keep, {len(broken)} dropped: {named}.{more}")


def _advice(
    targets: Sequence[Groups], leaks: Sequence[PromptChange], broken: Sequence[PromptChange], config: Mapping[str, Any]
) -> list[tuple[str, list[str]]]:
    """What to change in sentences, each with the flags of `crce erase` that change it."""
    several = len(targets) > 1
    if config["crce"] is False and (leaks or broken):
        them = ("targets", "them", "their") if several else ("target", "it", "its")
        return [("This run used the {} alone. Erase {} again with {} corefs and retains.".format(*them), ["--crce"])]

    def double(name: str, sentence: str) -> tuple[str, list[str]]:
        more = f"{2 * config[name] or 1:g}"
        return sentence.format(f"--{name} {more}, now {config[name]:g}"), [f"--{name}", more]

    advice = []
    shares = [groups["target"].measure.value for groups in targets]
    if any(share is not None and share < ERASED_WELL for share in shares) and not is_solved(config["method"]):
        advice.append(double("steps", f"Train longer ({{}}{'; the targets share them' if several else ''})."))
    for side, changes, weight, fault in (
        ("coref", leaks, "alpha", "corefs it was trained on leak"),
        ("retain", broken, "beta", "retains it was trained on dropped"),
    ):
        if any(change.group == side for change in changes):
            advice.append(double(weight, f"Raise the weight of the {side}s ({{}}): {fault}."))
        if new := [f'"{change.text}"' for change in changes if change.group != side][:ADVISED]:
            advice.append((f"Train {', '.join(new)} too, as {side}{'s' if len(new) > 1 else ''}.", []))
            advice[-1][1].extend(word for text in new for word in (f"--{side}", text[1:-1]))
    return advice


def points(share: float) -> str:
    """A difference of shares in percentage points: "+5", "-12", "0"."""
    rounded = round(100 * round(share, 4))  # from the digits that report.json has, as its page does
    return f"{rounded:+d}" if rounded else "0"


def _words(prompt: ScoredPrompt | PromptChange, target: str | None = None) -> str:
    """A prompt, with the target of its concept set, and its shares before and after."""
    of = "" if target is None else f' of "{target}"'
    return f'"{prompt.text}"{of} ({percent(prompt.base / prompt.n)} → {percent(prompt.erased / prompt.n)})'
