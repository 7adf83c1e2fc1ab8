"""Fill the tables of the documents from the benchmarks' JSON files and from the code.

    python tools/docs/tables.py

A table stands between `<!-- NAME -->` and `<!-- end -->`; the tests compare what stands there with what this makes.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crce.backbones.families import FAMILIES
from crce.backbones.memory_plan import GIB
from crce.bench.results import PairedDifference
from crce.evaluate.intervals import Measure
from crce.files import write_text
from crce.methods import METHODS
from crce.methods.table import support
from crce.training.run_folder import HEADLINES


ROOT = Path(__file__).parents[2]
COMPARISONS = 10  # of the table of methods, which Holm's correction begins with
POWER = 0.8  # probability of finding a difference that is there
PLACE = re.compile(r"(<!-- (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def _read(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / name).read_text(encoding="utf-8"))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def memory() -> str:
    """What `crce plan` says beside what a GPU took, in GiB."""
    rows = []
    for row in _read("plan/memory.json")["rows"]:
        flags = [f"`--micro-batch {row['micro_batch']}`"] if row["micro_batch"] else []
        flags += ["`--gradient-checkpointing`"] if row["gradient_checkpointing"] else []
        sizes = [f"{row[name] / GIB:.1f}" for name in ("planned", "measured")]
        rows.append([f"`{row['model']}`", " ".join(flags) or "none", *sizes])
    return _table(["model", "flags", "planned", "measured"], rows)


def quantized() -> str:
    """What `crce plan` says of models in NF4, in GiB."""
    rows = []
    for row in _read("plan/memory.json")["quantized"]:
        sizes = [f"{size / GIB:.1f}" for size in (sum(row["weights"].values()), row["peak"], row["system"])]
        rows.append([f"`{row['model']}`", str(row["resolution"]), *sizes])
    return _table(["model", "side", "weights", "peak", "system RAM"], rows)


def defaults() -> str:
    """How models of each family and kin are sampled, and with which x_t they are trained."""
    rows = []
    for row in _read("plan/defaults.json")["rows"]:
        size = row["resolution"] or "its own"
        numbers = [size, row["steps"], f"{row['guidance']:g}", row["x_t_levels"], f"{row['x_t_guidance']:g}"]
        rows.append([f"`{row['family']}`", row["kin"] or "-", *map(str, numbers), row["source"]])
    return _table(["pipeline", "kin", "side", "steps", "guidance", "x_t levels", "x_t guidance", "source"], rows)


def _method_rows() -> list[dict[str, Any]]:
    """The rows of methods.json but the second plain one of ESD."""
    return [row for row in _read("erasure/methods.json")["rows"] if row.get("row") != "esd at 60 steps"]


def methods() -> str:
    """Every method, plain and with CRCE: means over targets and seeds that were measured both ways."""
    measured: dict[tuple[str, bool], dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
    for row in _method_rows():
        measured[row["method"], row["crce"]][row["concept"], row["seed"]] = row
    rows = []
    for method in METHODS:
        both = measured[method, False].keys() & measured[method, True].keys()
        for crce in (False, True) if both else ():
            cells = [measured[method, crce][cell] for cell in sorted(both)]
            means = [_mean([c[number] for c in cells]) for number in HEADLINES]
            rows.append([f"`{method}`{' + CRCE' if crce else ''}", *means, str(len(cells))])
    return _table(["method", *HEADLINES.values(), "runs"], rows)


def supported() -> str:
    """Every pair of method and pipeline class."""
    rows = [[f"`{method}`", *(support(method, pipeline).level for pipeline in FAMILIES)] for method in METHODS]
    return _table(["method", *(f"`{name}`" for name in FAMILIES)], rows)


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "none"


def closed_form() -> str:
    """Seconds of whole erasures in closed form, for one target and for fifty."""
    seconds = {(r["method"], r["crce"], r["targets"]): r["seconds"] for r in _read("speed/closed_form.json")["rows"]}
    counts = sorted({targets for _, _, targets in seconds})
    rows = [
        [f"`{method}`{' + CRCE' if crce else ''}", *(f"{seconds[method, crce, count]:.1f}" for count in counts)]
        for method in METHODS
        if METHODS[method].solved
        for crce in (False, True)
    ]
    return _table(["seconds", *(f"{count} target{'' if count == 1 else 's'}" for count in counts)], rows)


def loops() -> str:
    """What a step of each training loop costs, and when it is as good as the official one."""
    rows = []
    measured = _read("speed/loops.json")["rows"]
    official = {row["model"]: row["flops"] for row in measured if row["loop"] == "official"}
    for row in (row for row in measured if row["model"] == "demo"):
        counts = [f"{row[name]:g}" for name in ("forwards", "backwards", "calls")]
        less = [official[r["model"]] / r["flops"] for r in measured if r["loop"] == row["loop"]]
        soon = row.get("time_to_quality_ratio")
        sooner = f"{soon:.1f}" if soon else "-"
        ratios = [f"{min(less):.1f} to {max(less):.1f}", f"{row['seconds_ratio']:.1f}", sooner]
        h = row.get("H")
        memory = f"{row['peak_bytes'] / 2**20:.0f}"
        rows.append([f"`{row['loop']}`", *counts, memory, *ratios, "-" if h is None else f"{h:.2f}"])
    head = ["loop", "forwards", "backwards", "calls", "MiB", "less arithmetic", "less time", "sooner", "H"]
    return _table(head, rows)


def lazy_closed_form() -> str:
    """Seconds and memory of closed forms on large models, from the encoded prompts on."""
    rows = []
    for row in _read("speed/lazy_closed_form.json")["rows"]:
        numbers = (row["processor_seconds_solving"], row["seconds_solving"], row["beside_encoders_mb"] / 1024)
        rows.append([f"`{row['model']}`", f"`{row['method']}`", str(row["threads"]), *(f"{n:.1f}" for n in numbers)])
    head = ["shaped like", "method", "threads", "processor seconds", "seconds", "GiB beside the text encoders"]
    return _table(head, rows)


def deletions() -> str:
    """What remains after a hundred deletions, by the settings of the register."""
    found = _read("speed/deletions.json")
    counts = found["phrases"]
    head = ["settings", *(f"{name} ({count} phrases)" for name, count in counts.items())]
    rows = [
        [
            ", ".join(f"`{k}: {v:g}`" if k != "method" else f"`{k}: {v}`" for k, v in row.items() if k != "kept"),
            *(f"{row['kept'][name]:.2f}" for name in counts),
        ]
        for row in found["settings"]
    ]
    return _table(head, rows)


def deletion_costs() -> str:
    """Processor seconds of one deletion of a hundred, in two orders."""
    found = _read("speed/deletions.json")
    named = {
        "first": "the first",
        "median": "median",
        "most": "most of the others",
        "last_ten": "mean of the last ten",
    }
    rows = [["loading the model", f"{found['seconds_loading']:.1f}", ""]]
    rows += [[text, *(f"{order[name]:.1f}" for order in found["orders"])] for name, text in named.items()]
    rows += [["MB of the folder at the end", *(f"{order['folder_mb']:.0f}" for order in found["orders"])]]
    return _table(["processor seconds", "in alphabetical order", "in random order"], rows)


def coverage() -> str:
    """How often each interval holds the truth, over the truths and correlations that were simulated."""
    held: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for row in _read("statistics/coverage.json")["rows"]:
        held[row["interval"], row["groups"], row["values"]].append(row["coverage"])
    rows = [
        [name, str(groups), str(values), f"{sum(own) / len(own):.3f}", f"{min(own):.3f} to {max(own):.3f}"]
        for (name, groups, values), own in held.items()
    ]
    return _table(["interval", "prompts or concepts", "values of each", "holds the truth", "least and most"], rows)


def lists() -> str:
    """H with the lists of the offline suggester and with those of the atlas."""
    found = _read("suggest/lists.json")
    rows = {**found["targets"], "mean": found["means"]}
    sources = list(found["means"])
    return _table(["target", *sources], [[name, *(f"{row[s]:.2f}" for s in sources)] for name, row in rows.items()])


def _least_p(targets: int) -> float:
    return PairedDifference(Measure(None, None, None, 0), targets, None).least_p


def decidable() -> str:
    """The least number of targets with which a number of comparisons can be decided."""
    least = [next(n for n in itertools.count(1) if _least_p(n) * k <= 0.05) for k in range(1, 25)]
    rows = [[f"up to {most}", str(n)] for n, most in {n: k for k, n in enumerate(least, 1)}.items() if most < 24]
    return _table(["comparisons", "targets at the least"], rows)


def power() -> str:
    """How many targets it takes to find a difference in H between a method with CRCE and without."""
    found: dict[str, dict[str, dict[bool, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in _method_rows():
        found[row["method"]][row["concept"]][row["crce"]] += [] if row["H"] is None else [row["H"]]
    rows = []
    for method in METHODS:
        pairs = [own for own in found[method].values() if own[True] and own[False]]
        if not pairs:
            continue
        spread = statistics.stdev(statistics.fmean(own[True]) - statistics.fmean(own[False]) for own in pairs)
        normal = statistics.NormalDist()
        width = normal.inv_cdf(1 - 0.05 / 2 / COMPARISONS) + normal.inv_cdf(POWER)
        least = next(n for n in itertools.count(1) if _least_p(n) * COMPARISONS <= 0.05)
        needed = [str(max(least, math.ceil((width * spread / difference) ** 2))) for difference in (0.05, 0.1)]
        rows.append([f"`{method}`", str(len(pairs)), f"{spread:.2f}", *needed])
    return _table(["method", "targets", "standard deviation", "targets for 0.05", "for 0.10"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "closed_form": closed_form,
    "lazy_closed_form": lazy_closed_form,
    "loops": loops,
    "deletions": deletions,
    "deletion_costs": deletion_costs,
    "coverage": coverage,
    "lists": lists,
    "decidable": decidable,
    "power": power,
    "memory": memory,
    "quantized": quantized,
    "defaults": defaults,
    "methods": methods,
    "support": supported,
}


def filled(text: str) -> str:
    """The document with its tables as they are now."""
    return PLACE.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    for path in documents():
        before = path.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            write_text(path, after)
            print(f"{path.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
