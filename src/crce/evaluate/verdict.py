"""The verdict in plain words: what was erased, what leaked, what broke, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crce.evaluate.groups import ERASING, KEEPING
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
class Point:
    """One line of the verdict."""

    label: str
    tone: Tone
    text: str


@dataclass(frozen=True)
class Change:
    """A prompt that leaked or broke: recognised pictures of n before and after."""

    text: str
    group: str
    base: int
    erased: int
    n: int

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))

    @property
    def left(self) -> float:
        """Recognised pictures after, as a share of those before."""
        return self.erased / self.base

    @property
    def words(self) -> str:
        return f'"{self.text}" ({percent(self.base / self.n)} → {percent(self.erased / self.n)})'


@dataclass(frozen=True)
class Verdict:
    """What the numbers say.

    Attributes:
        points: the verdict, line by line.
        leaks: corefs that the erased model still draws as the target, worst first.
        broken: retains and unrelated phrases that it no longer draws as themselves, worst first.
    """

    points: tuple[Point, ...]
    leaks: tuple[Change, ...]
    broken: tuple[Change, ...]

    @property
    def text(self) -> str:
        return "\n".join(f"{p.label}: {p.text}" for p in self.points)


def percent(share: float) -> str:
    """A share in [0, 1] as "92 %", with a no-break space."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def make_verdict(
    target: str, groups: Mapping[str, ScoredGroup], summary: Mapping[str, Measure], config: Mapping[str, Any]
) -> Verdict:
    """Put the numbers into words.

    Args:
        target: the erased phrase.
        groups: scored groups by name.
        summary: the headline numbers.
        config: the run's recipe, so that the advice can name the present values.
    """
    if not was_scored(groups):
        look = f'look at the pictures whether "{target}" is gone and what should be kept is as before.'
        point = Point("Not scored", "unknown", f"no judge scored the pictures, so there are no numbers; {look}")
        return Verdict((point,), (), ())
    leaks, broken = _leaks(groups), _broken(groups)
    points = [
        _target_point(target, groups["target"], summary["erased"]),
        _leak_point(target, groups, leaks),
        broken_point(sum(len(groups[name].scored) for name in KEEPING), broken),
    ]
    advice = _advice(summary["erased"], leaks, broken, config)
    if advice:
        points.append(Point("Try next", "next", " ".join(advice)))
    return Verdict(tuple(points), leaks, broken)


def was_scored(groups: Mapping[str, ScoredGroup]) -> bool:
    """Whether a judge looked at the pictures."""
    return any(p.base_words is not None for group in groups.values() for p in group.prompts)


def _leaks(groups: Mapping[str, ScoredGroup]) -> tuple[Change, ...]:
    changes = [make_change(name, p) for name in ERASING[1:] for p in groups[name].scored]
    return tuple(sorted((c for c in changes if c.left >= LEAK_SHARE), key=lambda c: -c.left))


def _broken(groups: Mapping[str, ScoredGroup]) -> tuple[Change, ...]:
    changes = [make_change(name, p) for name in KEEPING for p in groups[name].scored]
    return tuple(sorted((c for c in changes if c.left <= BROKEN_SHARE), key=lambda c: c.left))


def make_change(group: str, prompt: ScoredPrompt) -> Change:
    """What became of a prompt that counts."""
    return Change(prompt.text, group, prompt.base, prompt.erased, prompt.n)


def _target_point(target: str, group: ScoredGroup, erased: Measure) -> Point:
    if erased.value is None:
        return Point("Not measured", "unknown", f'"{target}": {erased.reason}.')
    (prompt,) = group.scored
    counts = f"{prompt.erased} of {prompt.n} pictures still show it ({prompt.base} of {prompt.n} before)"
    if prompt.failed:
        counts += f"; {prompt.failed} of them failed to be drawn, which counts as still showing it"
    if erased.value >= ERASED_WELL:
        return Point("Erased", "good", f'"{target}" is gone: {counts}.')
    if erased.value >= ERASED_PARTLY:
        return Point("Partly erased", "bad", f'"{target}" is only partly gone: {counts}.')
    return Point("Not erased", "bad", f'"{target}" is still drawn: {counts}.')


def _leak_point(target: str, groups: Mapping[str, ScoredGroup], leaks: Sequence[Change]) -> Point:
    checked = sum(len(groups[name].scored) for name in ERASING[1:])
    if not checked:
        return Point("Leaks unknown", "unknown", "no other name of the target could be measured.")
    if not leaks:
        return Point("No leaks", "good", f'of {counted(checked, "other name")}, none still draws "{target}".')
    verb = "still draws" if len(leaks) == 1 else "still draw"
    counts = f'of {counted(checked, "other name")}, {len(leaks)} {verb} "{target}"'
    return Point("Leaked", "bad", f"{counts}: {_list(leaks)}.")


def broken_point(checked: int, broken: Sequence[Change]) -> Point:
    """The line about what should have been kept: so many phrases, of which these broke."""
    if not checked:
        return Point("Damage unknown", "unknown", "nothing that should be kept could be measured.")
    if not broken:
        return Point("Nothing broke", "good", f"of {counted(checked, 'thing')} to keep, all are still drawn.")
    return Point("Broke", "bad", f"of {counted(checked, 'thing')} to keep, {len(broken)} dropped: {_list(broken)}.")


def _advice(
    erased: Measure, leaks: Sequence[Change], broken: Sequence[Change], config: Mapping[str, Any]
) -> list[str]:
    if config.get("crce") is False and (leaks or broken):
        return ["This run used the target alone. Erase it again with its corefs and retains."]
    advice = []
    trained_leaks = [c for c in leaks if c.group == "coref"]
    unseen_leaks = [c for c in leaks if c.group == "coref_held_out"]
    if erased.value is not None and erased.value < ERASED_WELL and not is_solved(config.get("method")):
        advice.append(f"Train longer (--steps, {now_set(config, 'steps')}).")
    if trained_leaks:
        advice.append(f"Raise --alpha ({now_set(config, 'alpha')}): corefs it was trained on leak.")
    if unseen_leaks:
        advice.append(f"Add {_list(unseen_leaks, plain=True)} to the corefs.")
    trained_breaks = [c for c in broken if c.group == "retain"]
    unseen_breaks = [c for c in broken if c.group != "retain"]
    if trained_breaks:
        advice.append(f"Raise --beta ({now_set(config, 'beta')}): retains it was trained on dropped.")
    if unseen_breaks:
        advice.append(f"Add {_list(unseen_breaks, plain=True)} to the retains.")
    return advice


def now_set(config: Mapping[str, Any], name: str) -> str:
    """How a setting stands now, in words."""
    return f"now {config[name]:g}" if isinstance(config.get(name), int | float) else "see the recipe"


def _list(changes: Sequence[Change], plain: bool = False) -> str:
    named = [f'"{c.text}"' if plain else c.words for c in changes[:NAMED]]
    more = len(changes) - NAMED
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def counted(n: int, noun: str) -> str:
    """A number with its noun: 1 thing, 2 things."""
    return f"{n} {noun}" + ("" if n == 1 else "s")
