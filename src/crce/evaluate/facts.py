"""The tables of a report: numbers, settings and machine in words, and the commands that repeat a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from crce.evaluate.comparison import points
from crce.evaluate.prompts import TITLES
from crce.evaluate.verdict import percent


HEADLINES = {"erased": "Erased", "coref_erased": "Corefs erased", "kept": "Kept", "H": "H"}
CLASSES = 40  # of the judge, in the page
EVALUATE_FLAGS = ("images_per_prompt", "seed", "steps", "guidance")


def list_headlines(data: Mapping[str, Any], notes: Mapping[str, str]) -> list[dict[str, Any]]:
    """The headline numbers of report.json, each with its note."""
    return [
        {
            "title": HEADLINES[name],
            "note": notes[name],
            "percent": None if measure["value"] is None else percent(measure["value"]),
            "interval": show_interval(measure),
            **measure,
        }
        for name, measure in data["summary"].items()
    ]


def show_interval(measure: Mapping[str, Any]) -> str | None:
    """The interval and the number of images of a measure in report.json; None if it was not measured."""
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
    """The method, model and steps of a run in one line, from its run.json."""
    config = info["config"]
    method = str(config.get("method", "")).upper()
    sides = "with corefs and retains" if config.get("crce", True) else "alone, without corefs and retains"
    return f"{method} {sides} on the model {info['model']}, {config['steps']} steps"


def list_facts(data: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, str]:
    """Everything besides the numbers: model, judge, sampling settings, machine, times."""
    judge = data["judge"]
    facts = {
        "Model": f"{data['model']} ({data['revision'] or 'revision unknown'})",
        "Judge": _judge(judge) if judge else "none",
        "Its classes": _classes(judge["class_list"]) if judge else None,
        "Its answers": _answers(judge["calibration"]) if judge and judge.get("calibration") else None,
        "Drawn": ", ".join(f"{k.replace('_', ' ')} {show_value(v)}" for k, v in data["settings"].items()),
        "Sampling of this model": info["sampling"]["source"] if "sampling" in info else None,
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
    """The answers of a calibrated judge about images whose answer is known."""
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
    """The groups before and after, as rows of a table; those that can't be measured are left out."""
    return [
        {"title": TITLES[name], **show_comparison(compared)}
        for name, compared in (data["comparisons"] or {}).items()
        if compared
    ]


def list_numbers(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The numbers of a benchmark, as rows of a table; "reason" of those that can't be measured."""
    return [
        {
            "title": number["name"],
            "better": number["better"],
            "reason": number.get("reason"),
            **({} if "reason" in number else show_comparison(number)),
        }
        for number in data["numbers"]
    ]


def show_comparison(compared: Mapping[str, Any]) -> dict[str, Any]:
    """A group before and after: rates and difference of report.json in words."""
    change = compared["difference"]
    return {
        "n": compared["base"]["n"],
        "base": _share(compared["base"]),
        "erased": _share(compared["erased"]),
        "points": points(change["value"]),
        "interval": f"{points(change['low'])} to {points(change['high'])}",
        "significant": change["significant"],
    }


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
