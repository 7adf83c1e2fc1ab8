"""The verdict in plain words, on one target or several: what was erased, what leaked, what broke, what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crce.concepts.concept_set import fold
from crce.evaluate.prompts import ERASING, KEEPING, concept_group
from crce.evaluate.scores import ScoredGroup, ScoredPrompt
from crce.evaluate.stats import Measure
from crce.methods.table import is_solved


ERASED_WELL = 0.9  # erased share from which the target counts as gone
ERASED_PARTLY = 0.5
LEAK_SHARE = 0.25  # a coref leaks when this much of what the base model drew of it is still drawn as the target
BROKEN_SHARE = 0.75  # a phrase broke when no more than this much of what the base model drew of it is left
NAMED = 6  # phrases named in a sentence before "and N more"

Tone = Literal["good", "bad", "unknown", "next"]


@dataclass(frozen=True)
class ScoredTarget:
    """A target with the numbers of its concept set.

    Attributes:
        name: the erased phrase.
        groups: its scored groups by name.
        summary: its headline numbers.
    """

    name: str
    groups: Mapping[str, ScoredGroup]
    summary: Mapping[str, Measure]

    @property
    def erased(self) -> Measure:
        """How much of the target itself is gone."""
        return self.summary["erased"]

    @property
    def words(self) -> str:
        """The measured target with its shares before and after."""
        (prompt,) = self.groups["target"].scored
        return _change("target", prompt, None).words


@dataclass(frozen=True)
class Point:
    """One line of the verdict."""

    label: str
    tone: Tone
    text: str


@dataclass(frozen=True)
class PromptChange:
    """A prompt that leaked or broke: recognised images of n before and after.

    Attributes:
        text: the prompt.
        group: name of its group.
        base: recognised images of the base model.
        erased: of the erased model.
        n: all images of each.
        target: whose concept set it stands in, if the run has several targets.
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
        return self.erased / self.base

    @property
    def words(self) -> str:
        """The prompt with its shares before and after."""
        return f'"{self.text}" ({percent(self.base / self.n)} → {percent(self.erased / self.n)})'

    @property
    def words_with_target(self) -> str:
        """The same, with the target whose concept set it stands in."""
        shares = self.words.removeprefix(f'"{self.text}"')
        return self.words if self.target is None else f'"{self.text}" of "{self.target}"{shares}'


@dataclass(frozen=True)
class Verdict:
    """What the numbers say.

    Attributes:
        points: the verdict, line by line.
        leaks: corefs that the erased model still draws as the target, worst first.
        broken: retains and unrelated phrases that it no longer draws as themselves, worst first.
    """

    points: tuple[Point, ...]
    leaks: tuple[PromptChange, ...]
    broken: tuple[PromptChange, ...]

    @property
    def text(self) -> str:
        return "\n".join(f"{p.label}: {p.text}" for p in self.points)


def percent(share: float) -> str:
    """A share in [0, 1] as "92 %", with a no-break space."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def pool(targets: Sequence[ScoredTarget]) -> Mapping[str, ScoredGroup]:
    """The groups of all targets together; what several sets hold with the same meaning counts once."""
    if len(targets) == 1:
        return targets[0].groups
    pooled = {}
    for name in ERASING + KEEPING:
        prompts: dict[tuple[str, str | None, bool], ScoredPrompt] = {}
        for prompt in (p for target in targets for p in target.groups[name].prompts):
            prompts.setdefault((fold(prompt.text), prompt.prompt.expected, prompt.left_out is None), prompt)
        group = concept_group(name, [p.prompt for p in prompts.values()])
        pooled[name] = ScoredGroup(group, tuple(prompts.values()), Measure(None, None, None, 0))
    return pooled


def make_verdict(targets: Sequence[ScoredTarget], config: Mapping[str, Any]) -> Verdict:
    """Put the numbers into words.

    Args:
        targets: one or several.
        config: the run's recipe, so that the advice can name the present values.
    """
    groups = pool(targets)
    one = targets[0] if len(targets) == 1 else None
    if all(p.base_words is None for group in groups.values() for p in group.prompts):
        gone = f'"{one.name}" is' if one else "the targets are"
        look = f"look at the pictures whether {gone} gone and what should be kept is as before."
        point = Point("Not scored", "unknown", f"no judge scored the pictures, so there are no numbers; {look}")
        return Verdict((point,), (), ())
    leaks, broken = _leaks(targets), _broken(targets)
    points = [
        _target_point(one) if one else _targets_point(targets),
        _leak_point(one, groups, leaks),
        _broken_point(len({fold(p.text) for name in KEEPING for p in groups[name].scored}), broken),
    ]
    if advice := _advice(targets, leaks, broken, config):
        points.append(Point("Try next", "next", " ".join(advice)))
    return Verdict(tuple(points), leaks, broken)


def _leaks(targets: Sequence[ScoredTarget]) -> tuple[PromptChange, ...]:
    """Corefs that are still drawn as their target; of the same phrase for targets of one class the first."""
    leaks: dict[tuple[str, str | None], PromptChange] = {}
    for target in targets:
        own_class = target.groups["target"].prompts[0].prompt.expected
        changes = _changes(target, ERASING[1:], targets)
        for change in sorted((c for c in changes if c.left >= LEAK_SHARE), key=lambda c: -c.left):
            leaks.setdefault((fold(change.text), own_class), change)
    return tuple(sorted(leaks.values(), key=lambda c: -c.left))


def _broken(targets: Sequence[ScoredTarget]) -> tuple[PromptChange, ...]:
    """What should be kept and is no longer drawn as itself; each phrase once."""
    broken: dict[str, PromptChange] = {}
    for target in targets:
        changes = _changes(target, KEEPING, targets)
        for change in sorted((c for c in changes if c.left <= BROKEN_SHARE), key=lambda c: c.left):
            broken.setdefault(fold(change.text), change)
    return tuple(sorted(broken.values(), key=lambda c: c.left))


def _changes(target: ScoredTarget, names: Sequence[str], targets: Sequence[ScoredTarget]) -> list[PromptChange]:
    """What became of the prompts that count."""
    owner = target.name if len(targets) > 1 else None
    return [_change(name, prompt, owner) for name in names for prompt in target.groups[name].scored]


def _change(group: str, prompt: ScoredPrompt, target: str | None) -> PromptChange:
    return PromptChange(prompt.text, group, prompt.base, prompt.erased, prompt.n, target)


def _target_point(target: ScoredTarget) -> Point:
    name, erased = target.name, target.erased.value
    if erased is None:
        return Point("Not measured", "unknown", f'"{name}": {target.erased.reason}.')
    (prompt,) = target.groups["target"].scored
    counts = f"{prompt.erased} of {prompt.n} pictures still show it ({prompt.base} of {prompt.n} before)"
    if prompt.failed:
        counts += f"; {prompt.failed} of them failed to be drawn, which counts as still showing it"
    if erased >= ERASED_WELL:
        return Point("Erased", "good", f'"{name}" is gone: {counts}.')
    if erased >= ERASED_PARTLY:
        return Point("Partly erased", "bad", f'"{name}" is only partly gone: {counts}.')
    return Point("Not erased", "bad", f'"{name}" is still drawn: {counts}.')


def _targets_point(targets: Sequence[ScoredTarget]) -> Point:
    shares = [(target, target.erased.value) for target in targets if target.erased.value is not None]
    missing = [f'"{t.name}" ({t.erased.reason})' for t in targets if t.erased.value is None]
    if not shares:
        return Point("Not measured", "unknown", f"none of the {len(targets)} targets: {_listed(missing)}.")
    gone = [target for target, share in shares if share >= ERASED_WELL]
    left = sorted(((share, t) for t, share in shares if share < ERASED_WELL), key=lambda pair: pair[0])
    are = "is" if len(gone) == 1 else "are"
    unknown = f" Not measured: {_listed(missing)}." if missing else ""
    if not left:
        who = f"of {len(targets)} targets, {len(gone)} {are}" if missing else f"all {len(targets)} targets are"
        return Point("Erased", "good", f"{who} gone: {_listed([target.words for target in gone])}.{unknown}")
    still = f"still drawn: {_listed([target.words for _, target in left])}.{unknown}"
    label = "Partly erased" if gone or left[-1][0] >= ERASED_PARTLY else "Not erased"
    return Point(label, "bad", f"of {len(targets)} targets, {len(gone) or 'none'} {are} gone; {still}")


def _leak_point(one: ScoredTarget | None, groups: Mapping[str, ScoredGroup], leaks: Sequence[PromptChange]) -> Point:
    checked = sum(len(groups[name].scored) for name in ERASING[1:])
    if not checked:
        whose = "the target" if one else "a target"
        return Point("Leaks unknown", "unknown", f"no other name of {whose} could be measured.")
    if not leaks:
        whose = f'"{one.name}"' if one else "its target"
        return Point("No leaks", "good", f"of {_counted(checked, 'other name')}, none still draws {whose}.")
    single = len(leaks) == 1
    whose = f'"{one.name}"' if one else "its target" if single else "their targets"
    named = _listed([change.words_with_target for change in leaks])
    verb = "draws" if single else "draw"
    return Point("Leaked", "bad", f"of {_counted(checked, 'other name')}, {len(leaks)} still {verb} {whose}: {named}.")


def _broken_point(checked: int, broken: Sequence[PromptChange]) -> Point:
    """The line about what should have been kept: so many phrases, of which these broke."""
    if not checked:
        return Point("Damage unknown", "unknown", "nothing that should be kept could be measured.")
    if not broken:
        return Point("Nothing broke", "good", f"of {_counted(checked, 'thing')} to keep, all are still drawn.")
    named = _listed([change.words for change in broken])
    return Point("Broke", "bad", f"of {_counted(checked, 'thing')} to keep, {len(broken)} dropped: {named}.")


def _advice(
    targets: Sequence[ScoredTarget],
    leaks: Sequence[PromptChange],
    broken: Sequence[PromptChange],
    config: Mapping[str, Any],
) -> list[str]:
    several = len(targets) > 1
    if config.get("crce") is False and (leaks or broken):
        them = ("targets", "them", "their") if several else ("target", "it", "its")
        return ["This run used the {} alone. Erase {} again with {} corefs and retains.".format(*them)]
    advice = []
    short = any(t.erased.value is not None and t.erased.value < ERASED_WELL for t in targets)
    if short and not is_solved(config.get("method")):
        shared = "; the targets share them" if several else ""
        advice.append(f"Train longer (--steps, {_now(config, 'steps')}{shared}).")
    if any(change.group == "coref" for change in leaks):
        advice.append(f"Raise --alpha ({_now(config, 'alpha')}): corefs it was trained on leak.")
    advice += _additions([change for change in leaks if change.group == "coref_held_out"], "corefs")
    if any(change.group == "retain" for change in broken):
        advice.append(f"Raise --beta ({_now(config, 'beta')}): retains it was trained on dropped.")
    return advice + _additions([change for change in broken if change.group != "retain"], "retains")


def _additions(changes: Sequence[PromptChange], side: str) -> list[str]:
    """What to add to the concept sets, in one sentence for all of them; none if there is nothing to add."""
    texts: dict[str | None, list[str]] = {}
    for change in changes[:NAMED]:
        texts.setdefault(change.target, []).append(f'"{change.text}"')
    more = len(changes) - NAMED
    if None in texts:
        return [f"Add {', '.join(texts[None])}{f' and {more} more' if more > 0 else ''} to the {side}."]
    parts = [f'{", ".join(of_one)} to the {side} of "{target}"' for target, of_one in texts.items()]
    return [f"Add {', '.join(parts)}{f' (and {more} more)' if more > 0 else ''}."] if parts else []


def _now(config: Mapping[str, Any], name: str) -> str:
    """The present value of a setting, in words."""
    return f"now {config[name]:g}" if isinstance(config.get(name), int | float) else "see the recipe"


def _listed(named: Sequence[str]) -> str:
    more = len(named) - NAMED
    return ", ".join(named[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _counted(n: int, noun: str) -> str:
    """A number with its noun: 1 thing, 2 things."""
    return f"{n} {noun}" + ("" if n == 1 else "s")
