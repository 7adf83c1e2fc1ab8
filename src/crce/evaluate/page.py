"""What the pages of a report share: words for numbers and settings, cards of pictures, the commands to repeat it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from crce.concepts import certainty_word
from crce.evaluate.groups import NO_JUDGE
from crce.evaluate.rates import TITLES, points
from crce.evaluate.verdict import percent
from crce.sampling.pictures import Picture, data_uri


PAIRS = 4  # pairs shown per prompt
PICTURES = 320  # most pictures in a page: with many prompts fewer pairs of each are shown

HEADLINES = {"erased": "Erased", "coref_erased": "Corefs erased", "kept": "Kept", "H": "H"}
CLASSES = 40  # of the judge, in the page
EVALUATE_FLAGS = ("images_per_prompt", "seed", "steps", "guidance")


@cache
def environment() -> Environment:
    """The templates of this folder; a name that none of their values has is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def pairs_shown(prompts: int) -> int:
    """How many pairs of pictures a page of so many prompts shows of each."""
    return max(1, min(PAIRS, PICTURES // (2 * max(1, prompts))))


def make_card(prompt: Mapping[str, Any], *, erasing: bool, bad: bool) -> dict[str, Any]:
    """A prompt of report.json as a page shows it; `bad` as its verdict says."""
    scored = prompt["left_out"] is None
    return {
        **prompt,
        "erasing": erasing,
        "certainty": None if prompt["certainty"] is None else certainty_word(prompt["certainty"]),
        "mark": None if not scored else "bad" if bad else "good",
        "count": f"{prompt['base']} → {prompt['erased']} of {prompt['n']}" if scored else "left out",
        "why": None if prompt["left_out"] == NO_JUDGE else prompt["left_out"],
    }


def make_pairs(
    card: Mapping[str, Any], before: Sequence[Picture], after: Sequence[Picture]
) -> Iterator[dict[str, Any]]:
    """The pictures of a card, before and after, with the judge's words; marked where the judge saw the wrong thing."""
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


def make_headline(name: str, measure: Mapping[str, Any], note: str) -> dict[str, Any]:
    """A headline number of report.json as its card shows it."""
    shown = None if measure["value"] is None else percent(measure["value"])
    return {"title": HEADLINES[name], "note": note, "percent": shown, "interval": show_interval(measure), **measure}


def show_interval(measure: Mapping[str, Any]) -> str | None:
    """The interval and the number of pictures of a measure in report.json; None if it was not measured."""
    if measure["value"] is None:
        return None
    return f"{percent(measure['low'])} to {percent(measure['high'])}, {measure['n']} pictures"


def show_value(value: Any) -> str:
    """A setting, in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(show_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def make_subtitle(info: Mapping[str, Any]) -> str:
    """How a run erased, in a line, from its run.json."""
    config = info["config"]
    method = str(config.get("method", "")).upper()
    sides = "with corefs and retains" if config.get("crce", True) else "alone, without corefs and retains"
    return f"{method} {sides} on the model {info['model']}, {config['steps']} steps"


def list_facts(data: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, str]:
    """Everything around the numbers: model, judge, settings of the drawing, machine, times."""
    judge = data["judge"]
    facts = {
        "Model": f"{data['model']} ({data['revision'] or 'revision unknown'})",
        "Judge": _judge(judge) if judge else "none",
        "Its classes": _classes(judge["class_list"]) if judge else None,
        "Its answers": _answers(judge["calibration"]) if judge and judge.get("calibration") else None,
        "Drawn": ", ".join(f"{k.replace('_', ' ')} {show_value(v)}" for k, v in data["settings"].items()),
        "Device": info.get("device"),
        "Peak memory": f"{info['peak_memory_mb']:.0f} MB" if info.get("peak_memory_mb") else None,
        "Seconds of the run": _seconds(info.get("seconds", {})),
        "Seconds of this report": _seconds(data["seconds"]),
        "Started": info.get("started"),
        "Versions": ", ".join(f"{k} {v}" for k, v in {"crce": info.get("crce"), **info.get("versions", {})}.items()),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _judge(judge: Mapping[str, Any]) -> str:
    least = judge["threshold"]
    counts = f"its word counts from probability {least:g} on" if least else "its best word counts"
    return f"{judge['name']} {judge['version']}, {judge['classes']} classes, weights {judge['hash']}; {counts}"


def _classes(names: Sequence[str]) -> str:
    more = len(names) - CLASSES
    return ", ".join(names[:CLASSES]) + (f" and {more} more, in report.json" if more > 0 else "")


def _answers(calibration: Mapping[str, Any]) -> str:
    """How a judge that was calibrated answered about pictures whose answer is known."""
    sides = [
        f"{title}: " + ", ".join(f"{count} {answer}" for answer, count in calibration[side].items())
        for side, title in (("shown", "of what was asked for"), ("absent", "of other things"))
    ]
    if "references" in calibration:  # faces are compared with these
        known = ", ".join(f"{count} of {name}" for name, count in calibration["references"].items())
        return f"{'; '.join(sides)}; faces to compare with: {known}"
    worth = ", ".join(f"{answer} {share:.2f}" for answer, share in calibration["probability"].items())
    return f"{'; '.join(sides)}; so the thing is there with probability {worth}"


def list_comparisons(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups before and after, as rows of a table; those that can't be measured are not among them."""
    return [
        {
            "title": TITLES[name],
            "n": compared["base"]["n"],
            "base": _share(compared["base"]),
            "erased": _share(compared["erased"]),
            "points": points(compared["difference"]["value"]),
            "interval": f"{points(compared['difference']['low'])} to {points(compared['difference']['high'])}",
            "significant": compared["difference"]["significant"],
        }
        for name, compared in (data["comparisons"] or {}).items()
        if compared
    ]


def list_quality(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Drift and quality of the groups, as rows of a table."""
    rows = []
    for name, group in (data["quality"] or {"groups": {}})["groups"].items():
        scores = group["clip_score"]
        numbers = [f"{m['value']:.3f}" if (m := group[key]) else None for key in ("rmse", "perceptual", "features")]
        clip = f"{scores['base']:.1f} → {scores['erased']:.1f}" if scores else None
        rows.append({"title": TITLES[name], "numbers": [*numbers, clip]})
    return rows


def _share(rate: Mapping[str, Any]) -> dict[str, str]:
    return {"percent": percent(rate["value"]), "interval": f"{percent(rate['low'])} to {percent(rate['high'])}"}


def _seconds(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())


def list_commands(data: Mapping[str, Any], info: Mapping[str, Any]) -> list[list[str]]:
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
        elif isinstance(value, list | tuple):
            erase += [(f"--{flag}", str(item)) for item in value]
        elif value is not None:
            erase.append((f"--{flag}", str(value)))
    erase += [("--no-eval",), ("--out", "again")]
    settings: list[tuple[str, ...]] = [
        (f"--{name.replace('_', '-')}", str(data["settings"][name])) for name in EVALUATE_FLAGS
    ]
    if data["judge"]:
        settings += [("--judge", data["judge"]["name"]), ("--threshold", str(data["judge"]["threshold"]))]
    if data.get("quality"):
        settings.append(("--quality",))
    return [
        [shlex.join(words) for words in command] for command in (erase, [("crce", "evaluate", "again"), *settings])
    ]
