"""report.html: one template, whose sections are shown as far as there is something to fill them with.

A page is HTML without scripts and without anything to be fetched, but the pages of the targets of a run with several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from crce.concepts import certainty_word
from crce.evaluate.curve import draw_curve
from crce.evaluate.facts import (
    HEADLINES,
    list_commands,
    list_comparisons,
    list_facts,
    list_headlines,
    list_numbers,
    list_quality,
    make_subtitle,
    show_interval,
    show_value,
)
from crce.evaluate.locality import draw_locality
from crce.evaluate.prompts import NO_JUDGE, spread
from crce.evaluate.verdict import percent
from crce.sampling.pictures import Picture, data_uri


if TYPE_CHECKING:
    from crce.evaluate.measurement import MeasuredTarget
    from crce.evaluate.observe import Images

PAIRS = 4  # pairs of images shown per prompt
PICTURES = 320  # most images in a page: with many prompts fewer pairs of each are shown
SHOWN = 6  # prompts of a group of a prompt set that the page shows
NAMED = 3  # targets in the title; more are counted
WORST = 12  # leaks, and breaks, in the page of several targets; all of them are in report.json

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


def render_target(
    data: Mapping[str, Any],
    target: MeasuredTarget,
    *,
    info: Mapping[str, Any],
    trace: Sequence[Mapping[str, Any]],
    overview: str | None = None,
) -> str:
    """The page of one target.

    Args:
        data: the content of report.json.
        target: the target, with its images.
        info: the run's run.json.
        trace: the rows of its metrics.jsonl.
        overview: address of the page of the whole run, if it has several targets.
    """
    groups = [_target_group(name, data) for name, group in data["groups"].items() if group["prompts"]]
    cards = [card for group in groups for card in group["cards"]]
    pairs = _add_pairs(cards, target.before, target.after)
    heading = f"Erasing {data['target']}"
    footer = "All numbers and words are in report.json beside this page; all pictures in images/."
    return _render(
        data,
        info,
        None if overview else trace,
        title=heading,
        heading=heading,
        judge=data["judge"],
        headlines=list_headlines(data, NOTES),
        overview=overview,
        groups=groups,
        pairs=pairs,
        left_out=[(group["title"], card) for group in groups for card in group["cards"] if card["left_out"]],
        concepts=target.concepts,
        quality=list_quality(data),
        locality=draw_locality(data["locality"]),
        footer=footer,
    )


def render_targets(
    data: Mapping[str, Any],
    targets: Sequence[MeasuredTarget],
    reports: Sequence[Mapping[str, Any]],
    *,
    info: Mapping[str, Any],
    trace: Sequence[Mapping[str, Any]],
) -> str:
    """The page of a run with several targets: all of them at a glance, each with a link to its own page.

    Args:
        data: the content of report.json.
        targets: the targets, in the order of `data`.
        reports: the content of the report.json of each.
        info: the run's run.json.
        trace: the rows of its metrics.jsonl.
    """
    names, entries = [entry["target"] for entry in data["targets"]], data["targets"]
    addresses = {entry["target"]: entry["report"] for entry in entries}
    cards = []
    for entry, own in zip(entries, reports, strict=True):
        (prompt,) = own["groups"]["target"]["prompts"]
        card = _card(prompt, erasing=True, bad=own["points"][0]["tone"] == "bad")
        cards.append({**card, "report": entry["report"]})
    pairs = _add_pairs(cards, [t.before[0] for t in targets], [t.after[0] for t in targets])
    worst = [
        ("Leaks", "other names that still draw their target", "nothing leaked", data["leaks"]),
        ("Breaks", "what should be as before and is not", "nothing broke", data["broken"]),
    ]
    title = f"{len(names)} targets" if len(names) > NAMED else f"{', '.join(names[:-1])} and {names[-1]}"
    return _render(
        data,
        info,
        trace,
        title=f"Erasing {title}",
        heading=f"Erasing {title}",
        judge=data["judge"],
        headlines=list_headlines(data, {**NOTES, "erased": "the targets"}),
        targets=[{**entry, "numbers": list_headlines(entry, NOTES)} for entry in entries],
        groups=[{"title": None, "cards": cards}],
        pairs=pairs,
        worst=[
            (title, note, nothing, [_worst(c, addresses) for c in changes[:WORST]], len(changes) - WORST)
            for title, note, nothing, changes in worst
        ],
        footer="All numbers and words of this page are in report.json beside it; the reports and pictures of the "
        "targets in targets/.",
    )


def render_prompt_set(data: Mapping[str, Any], images: Images, *, info: Mapping[str, Any]) -> str:
    """The page of a prompt set: the numbers by their published names, and some prompts of each group.

    Args:
        data: the content of report.json.
        images: of some of the prompts.
        info: the run's run.json.
    """
    groups = [_prompt_set_group(group, images) for group in data["groups"].values()]
    cards = [card for group in groups for card in group["cards"]]
    before, after = ([images[card["text"]][side] for card in cards] for side in (0, 1))
    pairs = _add_pairs(cards, before, after)
    return _render(
        data,
        info,
        None,
        title=f"{data['set']['title']}: {data['target']}",
        heading=f"{data['target']}, measured by {data['set']['title']}",
        judge=data["judges"][0] if data["judges"] else None,
        benchmark=list_numbers(data),
        groups=groups,
        pairs=pairs,
        footer="All numbers and words are in report.json beside this page; all pictures in pictures/ of the run.",
    )


def _render(
    data: Mapping[str, Any], info: Mapping[str, Any], trace: Sequence[Mapping[str, Any]] | None, **sections: Any
) -> str:
    """The page; the sections on the run itself (loss, recipe, commands) only with its trace."""
    absent = dict.fromkeys(
        ("overview", "headlines", "benchmark", "targets", "left_out", "worst", "concepts", "quality", "locality")
    )
    run = {
        "curve": None if trace is None else draw_curve(trace),
        "commands": None if trace is None else list_commands(data, info),
        "recipe": {name: show_value(value) for name, value in info["config"].items()},
        "compared": list_comparisons(data) if "comparisons" in data else [],
        "points": data.get("points"),
    }
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            {**absent, **run, **sections},
            data=data,
            subtitle=make_subtitle(info),
            columns=HEADLINES,
            certainty=certainty_word,
            facts=list_facts({**data, "judge": sections["judge"]}, info),
        )
    )


@cache
def _environment() -> Environment:
    """The templates of this folder; a name without a value is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _target_group(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    group = data["groups"][name]
    title, note = GROUPS[name]
    if interval := show_interval(group):
        note += f" ({interval})"
    if undrawn := group["available"] - len(group["prompts"]):
        note += f"; {undrawn} more in the set were not drawn"
    # What counts as bad is the verdict's to say: one image more or less does not.
    bad = {change["text"] for change in data["leaks"] + data["broken"] if change["group"] == name}
    if name == "target" and data["points"][0]["tone"] == "bad":
        bad.add(data["target"])
    return {
        "title": title,
        "note": note,
        "score": None if group["value"] is None else f"{percent(group['value'])} {group['measures']}",
        "cards": [_card(p, erasing=group["measures"] == "erased", bad=p["text"] in bad) for p in group["prompts"]],
    }


def _prompt_set_group(group: Mapping[str, Any], images: Images) -> dict[str, Any]:
    """A group with the cards of some of its prompts, one for each text."""
    by_text = {prompt["text"]: prompt for prompt in reversed(group["prompts"]) if prompt["text"] in images}
    erasing = group["measures"] == "erased"
    cards = []
    for prompt in spread(list(reversed(by_text.values())), SHOWN):
        scored = prompt["left_out"] is None
        bad = scored and (2 * prompt["erased"] > prompt["base"]) == erasing
        cards.append(_card(prompt, erasing=erasing, bad=bad))
    texts = len({prompt["text"] for prompt in group["prompts"]})
    note = "should no longer show the target" if erasing else "should be as before"
    note += f"; {texts} of {group['of']} prompts were drawn"
    return {"title": group["title"], "note": note, "score": None, "cards": cards}


def _card(prompt: Mapping[str, Any], *, erasing: bool, bad: bool) -> dict[str, Any]:
    """A prompt of report.json as a page shows it; `bad` as its verdict says."""
    scored = prompt["left_out"] is None
    return {
        **prompt,
        "erasing": erasing,
        "report": None,
        "certainty": None if prompt["certainty"] is None else certainty_word(prompt["certainty"]),
        "mark": None if not scored else "bad" if bad else "good",
        "count": f"{prompt['base']} → {prompt['erased']} of {prompt['n']}" if scored else "left out",
        "why": None if prompt["left_out"] == NO_JUDGE else prompt["left_out"],
    }


def _add_pairs(
    cards: Sequence[dict[str, Any]], before: Sequence[Sequence[Picture]], after: Sequence[Sequence[Picture]]
) -> int:
    """Give every card its images, and return how many pairs that are at most: the more cards, the fewer."""
    pairs = max(1, min(PAIRS, PICTURES // (2 * max(1, len(cards)))))
    for card, above, below in zip(cards, before, after, strict=True):
        card["pairs"] = list(_pairs(card, above[:pairs], below[:pairs]))
    return pairs


def _pairs(card: Mapping[str, Any], before: Sequence[Picture], after: Sequence[Picture]) -> Iterator[dict[str, Any]]:
    """The images of a card before and after, with the judge's words; marked where the judge saw the wrong thing."""
    for k, (above, below) in enumerate(zip(before, after, strict=True)):
        words = {side: card["words"][side][k] if card["words"] else None for side in ("base", "erased")}
        mark = None
        if card["left_out"] is None and above is not None:
            recognised = words["erased"] == card["class"] if below is not None else card["erasing"]
            mark = "bad" if recognised == card["erasing"] else "good"
        yield {
            "before": {"src": above and data_uri(above), "word": words["base"], "mark": None},
            "after": {"src": below and data_uri(below), "word": words["erased"], "mark": mark},
        }


def _worst(change: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
    """A phrase that leaked or broke, in its table."""
    shares = (percent(change[side] / change["n"]) for side in ("base", "erased"))
    title, _ = GROUPS[change["group"]]
    return {**change, "title": title, "report": addresses[change["target"]], "shares": " → ".join(shares)}
