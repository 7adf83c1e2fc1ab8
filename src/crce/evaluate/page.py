"""report.html: one template, whose sections are shown as far as report.json fills them.

A page is HTML without scripts, and needs nothing but, in a run with several targets, the pages of these.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from crce.concepts import certainty_word
from crce.concepts.faults import listed
from crce.config import show_value
from crce.evaluate.curve import draw_curve, read_trace
from crce.evaluate.prompts import NO_JUDGE, PAIRS, SHOWN, TITLES, spread
from crce.evaluate.quality import draw_locality
from crce.evaluate.verdict import percent, points
from crce.sampling.pictures import Picture, data_uri


if TYPE_CHECKING:
    from crce.evaluate.measurement import MeasuredTarget
    from crce.evaluate.observe import Images
    from crce.training import Erasure

PICTURES = 320  # most images in a page: with many prompts fewer pairs of each are shown
NAMED = 3  # targets in the title; more are counted
WORST = 12  # leaks, and breaks, in the page of several targets; all of them are in report.json

CLASSES = 40  # of the judge, in the page
EVALUATE_FLAGS = ("images_per_prompt", "seed", "steps", "guidance", "quantize")

GROUPS = {
    "target": ("Target", "should no longer be drawn"),
    "coref": ("Corefs", "other names of the target that were trained on; should no longer draw it"),
    "coref_held_out": ("Held-out corefs", "other names that the training never saw; should no longer draw it"),
    "retain": ("Retains", "neighbours that were trained to stay; should be as before"),
    "retain_held_out": ("Held-out retains", "neighbours that the training never saw; should be as before"),
    "unrelated": ("Unrelated", "far from the target; should be as before"),
}


def render_target(data: Mapping[str, Any], target: MeasuredTarget, erasure: Erasure, overview: str | None) -> str:
    """The page of one target from its report.json and its images.

    `overview` is the address of the page of the whole run, if it has several targets.
    """
    groups = [_target_group(name, data) for name, group in data["groups"].items() if group["prompts"]]
    return _render(
        data,
        erasure,
        groups,
        (target.before, target.after),
        heading=f"Erasing {data['target']}",
        overview=overview,
        concepts=target.concepts,
        locality=draw_locality(data["locality"]),
    )


def render_targets(
    data: Mapping[str, Any], targets: Sequence[MeasuredTarget], reports: Sequence[Mapping[str, Any]], erasure: Erasure
) -> str:
    """The page of a run with several targets: all of them at a glance, each with a link to its own page.

    `targets` and `reports`, the content of their report.json, are in the order of `data`, the run's report.json.
    """
    names = [entry["target"] for entry in data["targets"]]
    cards = [
        {**card, "report": entry["report"]}
        for entry, own in zip(data["targets"], reports, strict=True)
        for card in _target_group("target", own)["cards"]
    ]
    images = [target.before[0] for target in targets], [target.after[0] for target in targets]
    title = f"{len(names)} targets" if len(names) > NAMED else f"{', '.join(names[:-1])} and {names[-1]}"
    return _render(data, erasure, [{"title": None, "cards": cards}], images, heading=f"Erasing {title}")


def render_prompt_set(data: Mapping[str, Any], images: Images, erasure: Erasure) -> str:
    """The page of a prompt set: the numbers by their published names, and those prompts that have `images`."""
    groups = [_prompt_set_group(group, images) for group in data["groups"].values()]
    shown = [images[card["text"]] for group in groups for card in group["cards"]]
    sides = [before for before, _ in shown], [after for _, after in shown]
    title = data["set"]["title"]
    return _render(
        {**data, "judge": data["judges"][0] if data["judges"] else None},
        erasure,
        groups,
        sides,
        title=f"{title}: {data['target']}",
        heading=f"{data['target']}, measured by {title}",
    )


def _render(
    data: Mapping[str, Any],
    erasure: Erasure,
    groups: Sequence[Mapping[str, Any]],
    images: tuple[Sequence[Sequence[Picture]], Sequence[Sequence[Picture]]],
    *,
    overview: str | None = None,
    **sections: Any,
) -> str:
    """The page; the sections on the run itself (loss, recipe, commands) only where there is no other page for them.

    `images` are those of each card by the base and the erased model; the more cards, the fewer of them are shown.
    """
    info, whole_run = erasure.info, overview is None and "numbers" not in data
    cards = [card for group in groups for card in group["cards"]]
    pairs = max(1, min(PAIRS, PICTURES // (2 * max(1, len(cards)))))
    for number, (card, before, after) in enumerate(zip(cards, *images, strict=True)):
        card |= {"id": f"p{number}", "before": before[:pairs], "after": after[:pairs]}
    values = {
        "title": sections["heading"],
        "concepts": None,
        "locality": None,
        "curve": draw_curve(read_trace(erasure.folder)) if whole_run else None,
        "commands": list_commands(data) if whole_run else None,
        "judge": data["judge"],
        "facts": list_facts(data, info),
        **sections,
    }
    page = make_environment().get_template("report.html.j2")
    return page.render(values, data=data, groups=groups, pairs=pairs, overview=overview, info=info)


@cache
def make_environment(*others: BaseLoader) -> Environment:
    """The templates of this folder and of others; a name without a value is an error."""
    environment = Environment(
        loader=ChoiceLoader([*others, FileSystemLoader(Path(__file__).parent)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {f.__name__: f for f in (certainty_word, data_uri, percent, points, show_value)}
    environment.globals |= {"GROUPS": GROUPS, "NO_JUDGE": NO_JUDGE, "TITLES": TITLES, "WORST": WORST}
    return environment


def _target_group(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    group = data["groups"][name]
    title, note = GROUPS[name]
    # What counts as bad is the verdict's to say: one image more or less does not.
    bad = {change["text"] for change in data["leaks"] + data["broken"] if change["group"] == name}
    if name == "target" and data["points"][0]["tone"] == "bad":
        bad.add(data["target"])
    cards = [_card(p, erasing=group["measures"] == "erased", bad=p["text"] in bad) for p in group["prompts"]]
    return {"title": title, "note": note, "measure": group, "cards": cards}


def _prompt_set_group(group: Mapping[str, Any], images: Images) -> dict[str, Any]:
    """A group with the cards of some of its prompts, one for each text."""
    by_text = {prompt["text"]: prompt for prompt in reversed(group["prompts"]) if prompt["text"] in images}
    erasing = group["measures"] == "erased"
    cards = []
    for prompt in spread(list(reversed(by_text.values())), SHOWN):
        bad = prompt["left_out"] is None and (2 * prompt["erased"] > prompt["base"]) == erasing
        cards.append(_card(prompt, erasing=erasing, bad=bad))
    texts = len({prompt["text"] for prompt in group["prompts"]})
    note = "should no longer show the target" if erasing else "should be as before"
    note += f"; {texts} of {group['of']} prompts were drawn"
    return {"title": group["title"], "note": note, "measure": None, "cards": cards}


def _card(prompt: Mapping[str, Any], *, erasing: bool, bad: bool) -> dict[str, Any]:
    """A prompt of report.json as a page shows it; `bad` as its verdict says."""
    mark = None if prompt["left_out"] is not None else "bad" if bad else "good"
    return {**prompt, "erasing": erasing, "report": None, "mark": mark}


def list_facts(data: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, str]:
    """Everything besides the numbers: model, judge, sampling settings, machine, times."""
    judge, versions = data["judge"], {"crce": info.get("crce"), **info.get("versions", {})}

    def seconds(parts: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {value:.1f}" for name, value in parts.items())

    facts = {
        "Model": f"{data['model']} ({data['revision'] or 'revision unknown'})",
        **(_judge_facts(judge) if judge else {"Judge": "none"}),
        "Drawn": ", ".join(f"{k.replace('_', ' ')} {show_value(v)}" for k, v in data["settings"].items()),
        "Sampling of this model": info["sampling"]["source"],
        "Device": info.get("device"),
        "Peak memory": f"{info['peak_memory_mb']:.0f} MB" if info.get("peak_memory_mb") else None,
        "Seconds of the run": seconds(info.get("seconds", {})),
        "Seconds of this report": seconds(data["seconds"]),
        "Started": info.get("started"),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _judge_facts(judge: Mapping[str, Any]) -> dict[str, str | None]:
    least, classes = judge["threshold"], judge["class_list"]
    counts = f"its word counts from probability {least:g} on" if least else "its best word counts"
    return {
        "Judge": f"{judge['name']} {judge['version']}, {judge['classes']} classes, weights {judge['hash']}; {counts}",
        "Its classes": listed(classes, CLASSES) + (", in report.json" if len(classes) > CLASSES else ""),
        "Its answers": _answers(judge["calibration"]) if judge.get("calibration") else None,
    }


def _answers(calibration: Mapping[str, Any]) -> str:
    """The answers of a calibrated judge about images whose answer is known."""
    sides = [
        f"{title}: " + ", ".join(f"{count} {answer}" for answer, count in calibration[side].items())
        for side, title in (("shown", "of what was asked for"), ("absent", "of other things"))
    ]
    if "references" in calibration:  # faces are compared with these
        known = ", ".join(f"{count} of {name}" for name, count in calibration["references"].items())
        return f"{'; '.join(sides)}; faces to compare with: {known}"
    if "threshold" in calibration:
        return f"{'; '.join(sides)}, from its threshold on"
    worth = ", ".join(f"{answer} {share:.2f}" for answer, share in calibration["probability"].items())
    return f"{'; '.join(sides)}; so the thing is there with probability {worth}"


def list_commands(data: Mapping[str, Any]) -> list[list[str]]:
    """Commands that repeat the run and its report, each flag with its value."""
    settings = {name: data["settings"][name] for name in EVALUATE_FLAGS if name in data["settings"]}
    if "solver" in data["settings"]:  # which the model has by default, with its steps
        del settings["steps"]
    if data["judge"]:
        settings |= {"judge": data["judge"]["name"], "threshold": data["judge"]["threshold"]}
    flags = [shlex.join((f"--{name.replace('_', '-')}", str(value))) for name, value in settings.items()]
    flags += ["--quality"] if data.get("quality") else []
    return [["crce erase", "--like .", "--no-eval", "--out again"], ["crce evaluate again", *flags]]
