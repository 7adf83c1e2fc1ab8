"""The facts of a report besides its numbers: settings and machine in words, and the commands that repeat a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from crce.concepts.faults import listed


CLASSES = 40  # of the judge, in the page
EVALUATE_FLAGS = ("images_per_prompt", "seed", "steps", "guidance")


def show_value(value: Any) -> str:
    """A setting, in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(show_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def list_facts(data: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, str]:
    """Everything besides the numbers: model, judge, sampling settings, machine, times."""
    judge, versions = data["judge"], {"crce": info.get("crce"), **info.get("versions", {})}

    def seconds(parts: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {value:.1f}" for name, value in parts.items())

    facts = {
        "Model": f"{data['model']} ({data['revision'] or 'revision unknown'})",
        **(_judge_facts(judge) if judge else {"Judge": "none"}),
        "Drawn": ", ".join(f"{k.replace('_', ' ')} {show_value(v)}" for k, v in data["settings"].items()),
        "Sampling of this model": info["sampling"]["source"] if "sampling" in info else None,
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
    worth = ", ".join(f"{answer} {share:.2f}" for answer, share in calibration["probability"].items())
    return f"{'; '.join(sides)}; so the thing is there with probability {worth}"


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
    evaluate: list[tuple[str, ...]] = [("crce", "evaluate", "again")]
    evaluate += [(f"--{name.replace('_', '-')}", str(data["settings"][name])) for name in EVALUATE_FLAGS]
    if data["judge"]:
        evaluate += [("--judge", data["judge"]["name"]), ("--threshold", str(data["judge"]["threshold"]))]
    if data.get("quality"):
        evaluate.append(("--quality",))
    return [[shlex.join(words) for words in command] for command in (erase, evaluate)]
