"""report.html of one concept set: the verdict, the numbers, the pictures and how they came about, in one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crce.concepts import ConceptSet, certainty_word
from crce.evaluate.curve import draw_curve
from crce.evaluate.groups import ERASING
from crce.evaluate.locality import draw_locality
from crce.evaluate.page import (
    environment,
    list_commands,
    list_comparisons,
    list_facts,
    list_quality,
    make_card,
    make_headline,
    make_pairs,
    make_subtitle,
    pairs_shown,
    show_interval,
    show_value,
)
from crce.evaluate.verdict import percent
from crce.sampling.pictures import Picture


NOTES = {
    "erased": "the target",
    "coref_erased": "other names that the training never saw",
    "kept": "neighbours that the training never saw",
    "H": "harmonic mean of the three",
}
GROUPS = {
    "target": ("Target", "should no longer be drawn"),
    "coref": ("Corefs", "other names of the target that were trained on; should no longer draw it"),
    "coref_held_out": ("Held-out corefs", "other names that the training never saw; should no longer draw it"),
    "retain": ("Retains", "neighbours that were trained to stay; should be as before"),
    "retain_held_out": ("Held-out retains", "neighbours that the training never saw; should be as before"),
    "unrelated": ("Unrelated", "far from the target; should be as before"),
}


def render(
    data: Mapping[str, Any],
    base: Sequence[Sequence[Picture]],
    erased: Sequence[Sequence[Picture]],
    *,
    concepts: ConceptSet,
    info: Mapping[str, Any],
    trace: Sequence[Mapping[str, Any]],
    overview: str | None = None,
) -> str:
    """The page.

    Args:
        data: the content of report.json.
        base: the base model's pictures for each prompt, in the order of the prompts in `data`.
        erased: the erased model's pictures of the same seeds.
        concepts: the concept set that was erased.
        info: the run's run.json.
        trace: the rows of its metrics.jsonl.
        overview: where the page of the whole run is, if it has several targets; that holds what concerns all of them.

    Returns:
        HTML without scripts and without anything to be fetched.
    """
    groups = [_group(name, data) for name, group in data["groups"].items() if group["prompts"]]
    cards = [card for group in groups for card in group["cards"]]
    pairs = pairs_shown(len(cards))
    for card, before, after in zip(cards, base, erased, strict=True):
        card["pairs"] = list(make_pairs(card, before[:pairs], after[:pairs]))
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            judge=data["judge"],
            subtitle=make_subtitle(info),
            headlines=[make_headline(name, measure, NOTES[name]) for name, measure in data["summary"].items()],
            groups=groups,
            pairs=pairs,
            left_out=[(group["title"], card) for group in groups for card in group["cards"] if card["left_out"]],
            curve=draw_curve(trace),
            sides=[("Corefs", concepts.corefs), ("Retains", concepts.retains)],
            concepts=concepts,
            certainty=certainty_word,
            recipe={name: show_value(value) for name, value in info["config"].items()},
            facts=list_facts(data, info),
            compared=list_comparisons(data),
            quality=list_quality(data),
            locality=draw_locality(data["locality"]),
            commands=list_commands(data, info),
            overview=overview,
        )
    )


def _group(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    group = data["groups"][name]
    title, note = GROUPS[name]
    # What counts as bad is the verdict's to say: one picture more or less does not.
    bad = {change["text"] for change in data["leaks"] + data["broken"] if change["group"] == name}
    if name == "target" and data["points"][0]["tone"] == "bad":
        bad.add(data["target"])
    return {
        "title": title,
        "note": note,
        "score": None if group["value"] is None else f"{percent(group['value'])} {group['measures']}",
        "interval": show_interval(group),
        "undrawn": group["available"] - len(group["prompts"]),
        "cards": [make_card(p, erasing=name in ERASING, bad=p["text"] in bad) for p in group["prompts"]],
    }
