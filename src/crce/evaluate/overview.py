"""report.html of a run with several targets: all of them at a glance, each with the way to its own page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crce.evaluate.curve import draw_curve
from crce.evaluate.page import (
    HEADLINES,
    environment,
    list_commands,
    list_comparisons,
    list_facts,
    make_card,
    make_headline,
    make_pairs,
    make_subtitle,
    pairs_shown,
    show_interval,
    show_value,
)
from crce.evaluate.report import GROUPS
from crce.evaluate.targets import Target
from crce.evaluate.verdict import percent


NAMED = 3  # targets in the title; more are counted
WORST = 12  # leaks, and breaks, in the page; all of them are in report.json
NOTES = {
    "erased": "the targets",
    "coref_erased": "other names that the training never saw",
    "kept": "neighbours that the training never saw",
    "H": "harmonic mean of the three",
}


def render_overview(
    data: Mapping[str, Any],
    targets: Sequence[Target],
    *,
    info: Mapping[str, Any],
    trace: Sequence[Mapping[str, Any]],
) -> str:
    """The page.

    Args:
        data: the content of report.json.
        targets: what was measured of each target, in the order of `data`.
        info: the run's run.json.
        trace: the rows of its metrics.jsonl.

    Returns:
        HTML without scripts and without anything to be fetched but the pages of the targets.
    """
    pairs = pairs_shown(len(targets))
    addresses = {entry["target"]: entry["report"] for entry in data["targets"]}
    worst = [
        ("Leaks", "other names that still draw their target", "nothing leaked", data["leaks"]),
        ("Breaks", "what should be as before and is not", "nothing broke", data["broken"]),
    ]
    return (
        environment()
        .get_template("overview.html.j2")
        .render(
            data=data,
            judge=data["judge"],
            title=_title([target.name for target in targets]),
            subtitle=make_subtitle(info),
            headlines=[make_headline(name, measure, NOTES[name]) for name, measure in data["summary"].items()],
            columns=HEADLINES,
            rows=[_row(entry) for entry in data["targets"]],
            cards=[_card(target, entry, pairs) for target, entry in zip(targets, data["targets"], strict=True)],
            pairs=pairs,
            worst=[
                (title, note, nothing, [_change(c, addresses) for c in changes[:WORST]], len(changes) - WORST)
                for title, note, nothing, changes in worst
            ],
            curve=draw_curve(trace),
            recipe={name: show_value(value) for name, value in info["config"].items()},
            facts=list_facts(data, info),
            compared=list_comparisons(data),
            commands=list_commands(data, info),
        )
    )


def _title(names: Sequence[str]) -> str:
    if len(names) > NAMED:
        return f"{len(names)} targets"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A target in the table."""
    numbers = [
        {"percent": None if m["value"] is None else percent(m["value"]), "interval": show_interval(m)}
        for m in entry["summary"].values()
    ]
    return {**entry, "numbers": numbers}


def _card(target: Target, entry: Mapping[str, Any], pairs: int) -> dict[str, Any]:
    """A target's pictures."""
    (prompt,) = target.data["groups"]["target"]["prompts"]
    card = make_card(prompt, erasing=True, bad=target.data["points"][0]["tone"] == "bad")
    shown = list(make_pairs(card, target.before[:pairs], target.after[:pairs]))
    return {**card, "report": entry["report"], "pairs": shown}


def _change(change: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
    """A phrase that leaked or broke, in its table."""
    shares = (percent(change[side] / change["n"]) for side in ("base", "erased"))
    title, _ = GROUPS[change["group"]]
    return {**change, "title": title, "report": addresses[change["target"]], "shares": " → ".join(shares)}
