"""report.html: one self-contained page with the verdict, the numbers, the pictures and how they came about."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from crce.concepts import ConceptSet, certainty_word
from crce.evaluate.curve import draw_curve
from crce.evaluate.groups import ERASING
from crce.evaluate.pictures import Picture, data_uri
from crce.evaluate.verdict import percent


PAIRS = 4  # pairs shown per prompt
PICTURES = 320  # most pictures in a page: with many prompts fewer pairs of each are shown

EVALUATE_FLAGS = ("images_per_prompt", "seed", "steps", "guidance")

HEADLINES = {
    "erased": ("Erased", "the target"),
    "coref_erased": ("Corefs erased", "other names that the training never saw"),
    "kept": ("Kept", "neighbours that the training never saw"),
    "H": ("H", "harmonic mean of the three"),
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
) -> str:
    """The page.

    Args:
        data: the content of report.json.
        base: the base model's pictures for each prompt, in the order of the prompts in `data`.
        erased: the erased model's pictures of the same seeds.
        concepts: the concept set that was erased.
        info: the run's run.json.
        trace: the rows of its metrics.jsonl.

    Returns:
        HTML without scripts and without anything to be fetched.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = [_group(name, data) for name, group in data["groups"].items() if group["prompts"]]
    cards = [card for group in groups for card in group["cards"]]
    pairs = max(1, min(PAIRS, PICTURES // (2 * max(1, len(cards)))))
    for card, before, after in zip(cards, base, erased, strict=True):
        card["pairs"] = list(_pairs(card, before[:pairs], after[:pairs]))
    return environment.get_template("report.html.j2").render(
        data=data,
        judge=data["judge"],
        subtitle=_subtitle(info),
        headlines=[_headline(name, measure) for name, measure in data["summary"].items()],
        groups=groups,
        pairs=pairs,
        left_out=[(group["title"], card) for group in groups for card in group["cards"] if card["left_out"]],
        curve=draw_curve(trace),
        sides=[("Corefs", concepts.corefs), ("Retains", concepts.retains)],
        concepts=concepts,
        certainty=certainty_word,
        recipe={name: _plain(value) for name, value in info["config"].items()},
        facts=_facts(data, info),
        commands=_commands(data, info),
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
        "interval": _interval(group),
        "undrawn": group["available"] - len(group["prompts"]),
        "cards": [_card(prompt, name in ERASING, prompt["text"] in bad) for prompt in group["prompts"]],
    }


def _card(prompt: Mapping[str, Any], erasing: bool, bad: bool) -> dict[str, Any]:
    scored = prompt["left_out"] is None
    return {
        **prompt,
        "erasing": erasing,
        "certainty": None if prompt["certainty"] is None else certainty_word(prompt["certainty"]),
        "mark": None if not scored else "bad" if bad else "good",
        "count": f"{prompt['base']} → {prompt['erased']} of {prompt['n']}" if scored else "left out",
    }


def _pairs(card: Mapping[str, Any], before: Sequence[Picture], after: Sequence[Picture]) -> Iterator[dict[str, Any]]:
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


def _headline(name: str, measure: Mapping[str, Any]) -> dict[str, Any]:
    title, note = HEADLINES[name]
    shown = None if measure["value"] is None else percent(measure["value"])
    return {"title": title, "note": note, "percent": shown, "interval": _interval(measure), **measure}


def _interval(measure: Mapping[str, Any]) -> str | None:
    if measure["value"] is None:
        return None
    return f"{percent(measure['low'])} to {percent(measure['high'])}, {measure['n']} pictures"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _subtitle(info: Mapping[str, Any]) -> str:
    config = info["config"]
    method = str(config.get("method", "")).upper()
    sides = "with corefs and retains" if config.get("crce", True) else "alone, without corefs and retains"
    return f"{method} {sides} on the model {info['model']}, {config['steps']} steps"


def _facts(data: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, str]:
    judge = data["judge"]
    facts = {
        "Model": f"{data['model']} ({data['revision'] or 'revision unknown'})",
        "Judge": f"{judge['name']} {judge['version']}, {judge['classes']} classes, weights {judge['hash']}"
        if judge
        else "none",
        "Drawn": ", ".join(f"{k.replace('_', ' ')} {_plain(v)}" for k, v in data["settings"].items()),
        "Device": info.get("device"),
        "Peak memory": f"{info['peak_memory_mb']:.0f} MB" if info.get("peak_memory_mb") else None,
        "Seconds of the run": _seconds(info.get("seconds", {})),
        "Seconds of this report": _seconds(data["seconds"]),
        "Started": info.get("started"),
        "Versions": ", ".join(f"{k} {v}" for k, v in {"crce": info.get("crce"), **info.get("versions", {})}.items()),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _seconds(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())


def _commands(data: Mapping[str, Any], info: Mapping[str, Any]) -> list[list[str]]:
    """Commands that repeat the run and its report with every setting spelled out, each flag with its value."""
    erase = [("crce", "erase"), ("concepts.yaml",), ("--model", str(info["model"]))]
    if re.fullmatch("[0-9a-f]{40}", str(data["revision"])):  # a Hub commit; local files are pinned by a hash
        erase.append(("--revision", data["revision"]))
    if info.get("start_from"):
        erase.append(("--start-from", info["start_from"]["run"]))
    for name, value in info["config"].items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            erase.append((f"--{flag}" if value else f"--no-{flag}",))
        elif value is not None:
            erase.append((f"--{flag}", str(value)))
    erase += [("--no-eval",), ("--out", "again")]
    settings = [(f"--{name.replace('_', '-')}", str(data["settings"][name])) for name in EVALUATE_FLAGS]
    return [
        [shlex.join(words) for words in command] for command in (erase, [("crce", "evaluate", "again"), *settings])
    ]
