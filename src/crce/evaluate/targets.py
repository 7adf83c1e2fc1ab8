"""Several targets of one run: where each has its report, and the numbers and the verdict of all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.evaluate.groups import ERASING, KEEPING, Group
from crce.evaluate.rates import compare_groups, comparisons_json, say_significance
from crce.evaluate.scores import ScoredGroup, ScoredPrompt, summarise_groups
from crce.evaluate.stats import Measure
from crce.evaluate.verdict import (
    ERASED_PARTLY,
    ERASED_WELL,
    NAMED,
    Change,
    Point,
    Verdict,
    broken_point,
    counted,
    make_change,
    now_set,
    was_scored,
)
from crce.files import slug
from crce.methods.table import is_solved
from crce.sampling.pictures import Picture


FOLDER = "targets"


@dataclass(frozen=True)
class Target:
    """One of several targets, measured.

    Attributes:
        concepts: its concept set.
        folder: its folder, relative to the run's.
        groups: its scored groups by name.
        summary: its headline numbers.
        verdict: what they say.
        data: the content of its report.json.
        before: the base model's pictures of the target.
        after: the erased model's, of the same seeds.
    """

    concepts: ConceptSet
    folder: Path
    groups: Mapping[str, ScoredGroup]
    summary: Mapping[str, Measure]
    verdict: Verdict
    data: dict[str, Any]
    before: list[Picture]
    after: list[Picture]

    @property
    def name(self) -> str:
        return self.concepts.target

    @property
    def erased(self) -> float | None:
        """How far the target itself is gone; None if that could not be measured."""
        return self.summary["erased"].value


class Owned(NamedTuple):
    """A phrase that leaked or broke, and the target in whose set it stands."""

    target: str
    change: Change

    @property
    def words(self) -> str:
        shares = self.change.words.removeprefix(f'"{self.change.text}"')
        return f'"{self.change.text}" of "{self.target}"{shares}'

    def as_json(self) -> dict[str, Any]:
        return {"target": self.target, **self.change.as_json()}


def target_folders(sets: Sequence[ConceptSet]) -> list[Path]:
    """The folder of each target's report, relative to the run's; no two are the same."""
    folders: list[Path] = []
    for concepts in sets:
        name, number = slug(concepts.target), 1
        while (folder := Path(FOLDER) / (name if number == 1 else f"{name}-{number}")) in folders:
            number += 1
        folders.append(folder)
    return folders


def pool(targets: Sequence[Target]) -> dict[str, ScoredGroup]:
    """The groups of all targets together; what several sets hold with the same meaning counts once."""
    pooled = {}
    for name in ERASING + KEEPING:
        prompts: dict[tuple[str, str | None, bool], ScoredPrompt] = {}
        for prompt in (p for target in targets for p in target.groups[name].prompts):
            prompts.setdefault((fold(prompt.text), prompt.prompt.expected, prompt.left_out is None), prompt)
        group = Group(name, tuple(p.prompt for p in prompts.values()), len(prompts))
        pooled[name] = ScoredGroup(group, tuple(prompts.values()), Measure(None, None, None, 0))
    return pooled


def joint_summary(pooled: Mapping[str, ScoredGroup], *, seed: int = 0) -> dict[str, Measure]:
    """The headline numbers of all targets."""
    return {
        name: replace(m, reason=m.reason and m.reason.replace("the concept set has no", "no concept set has"))
        for name, m in summarise_groups(pooled, seed=seed).items()
    }


def joint_leaks(targets: Sequence[Target]) -> list[Owned]:
    """Corefs of all targets that are still drawn as their target, worst first; those of one class once."""
    leaks: dict[tuple[str, str | None], Owned] = {}
    for target in targets:
        own_class = target.groups["target"].prompts[0].prompt.expected
        for change in target.verdict.leaks:
            leaks.setdefault((fold(change.text), own_class), Owned(target.name, change))
    return sorted(leaks.values(), key=lambda owned: -owned.change.left)


def joint_broken(targets: Sequence[Target]) -> list[Owned]:
    """What should be kept beside any target and is no longer drawn, worst first; each phrase once."""
    broken: dict[str, Owned] = {}
    for owned in (Owned(t.name, c) for t in targets for c in t.verdict.broken):
        broken.setdefault(fold(owned.change.text), owned)
    return sorted(broken.values(), key=lambda owned: owned.change.left)


def joint_report(
    targets: Sequence[Target],
    common: Mapping[str, Any],
    config: Mapping[str, Any],
    failed: Mapping[str, int],
    seed: int,
) -> dict[str, Any]:
    """report.json of a run with several targets.

    Args:
        targets: what was measured of each.
        common: model, revision, judge and settings, as in the report of each.
        config: the run's recipe.
        failed: pictures of each model that could not be drawn.
        seed: of the bootstrap.
    """
    pooled = pool(targets)
    compared = compare_groups(pooled, seed=seed)
    judged = common["judge"] is not None
    leaks, broken = joint_leaks(targets), joint_broken(targets)
    points = _points(targets, pooled, leaks, broken, config)
    times = [target.data["seconds"] for target in targets]
    return {
        "targets": [_entry(target) for target in targets],
        "model": common["model"],
        "revision": common["revision"],
        "summary": {name: measure.as_json() for name, measure in joint_summary(pooled, seed=seed).items()},
        "verdict": Verdict(tuple(points), (), ()).text,
        "points": [dict(vars(point)) for point in points],
        "comparisons": comparisons_json(compared) if judged else None,
        "significance": say_significance(compared) if judged else [],
        "leaks": [owned.as_json() for owned in leaks],
        "broken": [owned.as_json() for owned in broken],
        "judge": common["judge"],
        "settings": common["settings"],
        "failed": dict(failed),
        "seconds": {
            "load": times[0]["load"],
            **{name: round(sum(each[name] for each in times), 2) for name in ("draw", "score")},
        },
    }


def _entry(target: Target) -> dict[str, Any]:
    own = {name: target.data[name] for name in ("target", "kind", "summary", "verdict")}
    return {**own, "report": (target.folder / "report.html").as_posix()}


def _points(
    targets: Sequence[Target],
    pooled: Mapping[str, ScoredGroup],
    leaks: Sequence[Owned],
    broken: Sequence[Owned],
    config: Mapping[str, Any],
) -> list[Point]:
    """The numbers of all targets in words."""
    if not was_scored(pooled):
        look = "look at the pictures whether the targets are gone and what should be kept is as before."
        return [Point("Not scored", "unknown", f"no judge scored the pictures, so there are no numbers; {look}")]
    kept = {fold(prompt.text) for name in KEEPING for prompt in pooled[name].scored}
    points = [
        _erased_point(targets),
        _leak_point(pooled, leaks),
        broken_point(len(kept), [owned.change for owned in broken]),
    ]
    if advice := _advice(targets, leaks, broken, config):
        points.append(Point("Try next", "next", " ".join(advice)))
    return points


def _erased_point(targets: Sequence[Target]) -> Point:
    shares = [(target, target.erased) for target in targets if target.erased is not None]
    missing = [f'"{t.name}" ({t.summary["erased"].reason})' for t in targets if t.erased is None]
    if not shares:
        return Point("Not measured", "unknown", f"none of the {len(targets)} targets: {_cut(missing)}.")
    gone = [target for target, share in shares if share >= ERASED_WELL]
    left = sorted(((share, t) for t, share in shares if share < ERASED_WELL), key=lambda pair: pair[0])
    are = "is" if len(gone) == 1 else "are"
    unknown = f" Not measured: {_cut(missing)}." if missing else ""
    if not left:
        who = f"of {len(targets)} targets, {len(gone)} {are}" if missing else f"all {len(targets)} targets are"
        return Point("Erased", "good", f"{who} gone: {_cut([_shown(target) for target in gone])}.{unknown}")
    still = f"still drawn: {_cut([_shown(target) for _, target in left])}.{unknown}"
    label = "Partly erased" if gone or left[-1][0] >= ERASED_PARTLY else "Not erased"
    return Point(label, "bad", f"of {len(targets)} targets, {len(gone) or 'none'} {are} gone; {still}")


def _shown(target: Target) -> str:
    """A measured target with its shares before and after."""
    (prompt,) = target.groups["target"].scored
    return make_change("target", prompt).words


def _leak_point(pooled: Mapping[str, ScoredGroup], leaks: Sequence[Owned]) -> Point:
    checked = sum(len(pooled[name].scored) for name in ERASING[1:])
    if not checked:
        return Point("Leaks unknown", "unknown", "no other name of a target could be measured.")
    if not leaks:
        return Point("No leaks", "good", f"of {counted(checked, 'other name')}, none still draws its target.")
    verb = "still draws its target" if len(leaks) == 1 else "still draw their targets"
    named = _cut([owned.words for owned in leaks])
    return Point("Leaked", "bad", f"of {counted(checked, 'other name')}, {len(leaks)} {verb}: {named}.")


def _advice(
    targets: Sequence[Target], leaks: Sequence[Owned], broken: Sequence[Owned], config: Mapping[str, Any]
) -> list[str]:
    if config.get("crce") is False and (leaks or broken):
        return ["This run used the targets alone. Erase them again with their corefs and retains."]
    advice = []
    if any(t.erased is not None and t.erased < ERASED_WELL for t in targets) and not is_solved(config.get("method")):
        advice.append(f"Train longer (--steps, {now_set(config, 'steps')}; the targets share them).")
    if any(owned.change.group == "coref" for owned in leaks):
        advice.append(f"Raise --alpha ({now_set(config, 'alpha')}): corefs it was trained on leak.")
    advice += _additions([owned for owned in leaks if owned.change.group == "coref_held_out"], "corefs")
    if any(owned.change.group == "retain" for owned in broken):
        advice.append(f"Raise --beta ({now_set(config, 'beta')}): retains it was trained on dropped.")
    advice += _additions([owned for owned in broken if owned.change.group != "retain"], "retains")
    return advice


def _additions(changes: Sequence[Owned], side: str) -> list[str]:
    """What to add to the sets, one sentence for all of them; none where there is nothing to add."""
    texts: dict[str, list[str]] = {}
    for owned in changes[:NAMED]:
        texts.setdefault(owned.target, []).append(f'"{owned.change.text}"')
    parts = [f'{", ".join(of_one)} to the {side} of "{target}"' for target, of_one in texts.items()]
    more = len(changes) - NAMED
    return [f"Add {', '.join(parts)}{f' (and {more} more)' if more > 0 else ''}."] if parts else []


def _cut(named: Sequence[str]) -> str:
    more = len(named) - NAMED
    return ", ".join(named[:NAMED]) + (f" and {more} more" if more > 0 else "")
