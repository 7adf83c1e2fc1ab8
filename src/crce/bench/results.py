"""Rows, means and comparisons of a benchmark, and its table in Markdown.

An interval is Student's t over the means of the concepts, as seeds of one concept are not independent. For the same
reason a comparison flips the signs of whole concepts: without a difference, the mean difference of each concept would
be as likely to be negative as positive.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crce.bench.cells import GridPlan, Job
from crce.bench.grid import SIZES
from crce.evaluate.intervals import Measure, mean_of
from crce.training.run_folder import HEADLINES


ResultRow = dict[str, Any]

COSTS = ("seconds", "forwards")  # of training
SIGNIFICANT = 0.05
EXACT = 12  # up to this number of concepts all signs are tried
FLIPS = 10_000  # random signs beyond it


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference between two rows, over the concepts and seeds that both have, and the number of concepts."""

    mean: Measure
    concepts: int
    p: float | None  # two-sided, of the sign-flip test over concepts; None without any

    @property
    def least_p(self) -> float:
        """The smallest p-value that this number of concepts can give."""
        return 2.0 ** (1 - self.concepts)

    def as_json(self) -> dict[str, Any]:
        return {**self.mean.as_json(), "concepts": self.concepts, "p": None if self.p is None else round(self.p, 5)}


def difference(base: Mapping[str, Mapping[int, float]], other: Mapping[str, Mapping[int, float]]) -> PairedDifference:
    """`other` minus `base`, both by concept and seed.

    A row without a random choice has one seed, which is compared with all of the other's.
    """
    both: dict[str, list[float]] = {}
    for concept in (name for name in other if name in base):
        x, y = base[concept], other[concept]
        single = 1 in (len(x), len(y))
        pairs = [(x[i], y[j]) for i, j in itertools.product(x, y) if single or i == j]
        both |= {concept: [b - a for a, b in pairs]} if pairs else {}
    means = np.array([np.mean(values) for values in both.values()])
    return PairedDifference(
        mean_of(list(both.values()), shares=False), len(both), _sign_flip(means) if len(both) else None
    )


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P-values of several comparisons, adjusted for their number by Holm's method (1979)."""
    order = sorted((value, i) for i, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, i) in enumerate(order):
        highest = max(highest, min(1.0, value * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


def _sign_flip(means: NDArray[np.float64]) -> float:
    """Two-sided p-value: the share of signs that give a mean at least as far from zero as the observed one."""
    n = len(means)
    if n <= EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=n)))
    else:  # the observed signs are one of the samples, so that p is never 0
        signs = np.vstack([np.ones(n), np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, n))])
    return float((np.abs(signs @ means) >= abs(means.sum()) - 1e-9).mean())


def summarise(plan: GridPlan, records: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str]) -> dict[str, Any]:
    """The content of results.json; measurements (`records`) and errors (`failed`) are by the key of the job."""
    rows = [_row(job, records[job.key]) for job in plan.jobs if job.key in records]
    configs: dict[str, Any] = {}
    for job in plan.jobs:  # that of the first target and seed: corefs per step depend on the length of a list
        configs.setdefault(job.cell.row, job.cell.config.model_dump(mode="json", exclude={"seed"}))
    return {
        "benchmark": plan.grid.name,
        "rows": rows,
        "means": means(rows),
        "comparisons": compare(rows, plan.grid.compare or _plain_pairs(plan.jobs)),
        "failed": [
            {"row": j.cell.row, "concept": j.cell.task.name, "seed": j.cell.config.seed, "error": failed[j.key]}
            for j in plan.jobs
            if j.key in failed
        ],
        "models": {job.cell.source.model: job.content["revision"] for job in plan.jobs},
        "evaluation": plan.grid.evaluation,
        "configs": configs,
    }


def means(rows: Sequence[ResultRow]) -> dict[str, dict[str, Any]]:
    """Means over concepts and seeds for each row of the table; missing numbers are left out and counted."""
    table: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["row"] for row in rows):
        part = [row for row in rows if row["row"] == name]
        table[name] = {"rows": len(part)}
        for number in (*HEADLINES, *COSTS):
            mean = _mean(part, number)
            table[name][number] = {**mean.as_json(), "unmeasured": len(part) - mean.n}
        # of each attack the shares of images that show the concept
        if attacks := dict.fromkeys(attack for row in part for attack in row.get("attacks", {})):
            sides = ("before", "after")
            table[name]["attacks"] = {
                attack: {side: _mean(part, "attacks", attack, side, "value").as_json() for side in sides}
                for attack in attacks
            }
    return table


def compare(rows: Sequence[ResultRow], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Pairs of rows of the table, the baseline first, over the concepts and seeds that both have."""
    found = []
    for base, other in pairs:
        parts = [[row for row in rows if row["row"] == name] for name in (base, other)]
        found.append({n: difference(_values(parts[0], n), _values(parts[1], n)) for n in HEADLINES})
    adjusted = holm([numbers["H"].p for numbers in found])
    count = sum(p is not None for p in adjusted)
    return [
        {
            "base": base,
            "other": other,
            **{name: made.as_json() for name, made in numbers.items()},
            "p_adjusted": None if p is None else round(p, 5),
            "text": _statement(base, other, numbers["H"], p, count),
        }
        for (base, other), numbers, p in zip(pairs, found, adjusted, strict=True)
    ]


def markdown(data: Mapping[str, Any], *, timed: bool = True) -> str:
    """The table of results.json, its comparisons, and what could not be measured.

    Seconds of training (`timed`) mean nothing if cells were measured on several machines.
    """
    head = ["method", *HEADLINES.values(), *(["seconds"] if timed else []), "cells"]
    rows = []
    for name, numbers in data["means"].items():
        seconds = [f"{numbers['seconds']['value']:.1f}"] if timed else []
        rows.append([name, *(_shown(numbers[number]) for number in HEADLINES), *seconds, str(numbers["rows"])])
    lines = _table(head, rows) if rows else ["No cell has been measured."]
    lines += _attack_table(data["means"])
    notes = [f"- {comparison['text']}" for comparison in data["comparisons"]] + _unmeasured(data["means"])
    notes += [f"- failed: {f['concept']}, {f['row']}, seed {f['seed']}: {f['error']}" for f in data["failed"]]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"


def _unmeasured(means: Mapping[str, Any]) -> list[str]:
    """Numbers that could not be measured, one line for all rows that lack the same ones."""
    rows: dict[str, list[str]] = {}
    for name, numbers in means.items():
        for number, title in HEADLINES.items():
            if missing := numbers[number]["unmeasured"]:
                text = f"{title} could not be measured in {missing} of {numbers['rows']} cells."
                rows.setdefault(text, []).append(name)
    every = len(means) if len(means) > 1 else None
    return [f"- {'every row' if len(names) == every else ', '.join(names)}: {text}" for text, names in rows.items()]


def _attack_table(means: Mapping[str, Any]) -> list[str]:
    """How often the concept appears under each attack; no lines without attacks."""
    attacks = {row: numbers.get("attacks", {}) for row, numbers in means.items()}
    names = list(dict.fromkeys(itertools.chain.from_iterable(attacks.values())))
    rows = []
    for row, own in attacks.items():
        before = next((_shown(own[name]["before"]) for name in names if name in own), "–")
        rows.append([row, before, *(_shown(own[name]["after"]) if name in own else "–" for name in names)])
    return ["", *_table(["shows the concept", "unattacked", *names], rows)] if names else []


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in ([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]


def _row(job: Job, record: Mapping[str, Any]) -> ResultRow:
    cell = job.cell
    row: ResultRow = {"row": cell.row, "model": cell.source.model, "method": cell.config.method}
    row |= {"crce": cell.config.crce, "concept": cell.task.name, "seed": cell.config.seed, **cell.axes}
    if len(cell.task.sets) > 1:
        row |= {"targets": len(cell.task.sets), "in_turn": cell.task.in_turn}
    for name in SIZES:
        if cell.axes.get(name):
            row[f"{name}_used"] = sum(len(getattr(c, f"train_{name}")) for c in cell.task.sets)
    left_out = ("crce", "content", "numbers", "targets")  # the numbers of each of many targets are in the report
    row |= record["numbers"] | {name: value for name, value in record.items() if name not in left_out}
    if judge := record["judge"]:  # its classes, often hundreds, are in the report
        row["judge"] = {name: value for name, value in judge.items() if name != "class_list"}
    return row | {"run": job.folder.name}


def _values(rows: Sequence[ResultRow], *keys: str) -> dict[str, dict[int, float]]:
    """The number under nested keys of a row, by concept and seed, without missing ones."""
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        value: Any = row
        for key in keys:
            value = None if value is None else value.get(key)
        if value is not None:
            values.setdefault(row["concept"], {})[row["seed"]] = value
    return values


def _mean(rows: Sequence[ResultRow], *keys: str) -> Measure:
    values = [list(seeds.values()) for seeds in _values(rows, *keys).values()]
    return mean_of(values, shares=keys[0] not in COSTS)


def _plain_pairs(jobs: Sequence[Job]) -> tuple[tuple[str, str], ...]:
    """The plain row of each method with the rows that differ from it only by corefs and retains."""
    shapes: dict[str, tuple[Any, ...]] = {}
    for cell in (job.cell for job in jobs):
        others = tuple(item for item in cell.axes.items() if item[0] not in SIZES)
        shapes.setdefault(cell.row, (cell.config.crce, cell.name, cell.source, str(others)))
    plain = {shape[1:]: row for row, shape in shapes.items() if not shape[0]}
    return tuple((plain[shape[1:]], row) for row, shape in shapes.items() if shape[0] and shape[1:] in plain)


def _statement(base: str, other: str, made: PairedDifference, adjusted: float | None, count: int) -> str:
    mean = made.mean
    if mean.value is None or made.p is None or adjusted is None:
        return f"{other} against {base}: nothing was measured of both."
    span = "" if mean.low is None else f" [{mean.low:+.2f}, {mean.high:+.2f}]"
    over = f"{made.concepts} concept{'' if made.concepts == 1 else 's'}"
    text = f"{other} against {base}: H {mean.value:+.2f}{span} over {over}"
    if adjusted > SIGNIFICANT and made.least_p * count > SIGNIFICANT:
        of = f" after Holm's correction for {count} comparisons" if count > 1 else ""
        least = f"p can't be below {min(1.0, made.least_p * count):.2g}{of}"
        return f"{text}; it can't be decided with {over}: {least}."
    corrected = f", {adjusted:.2g} after Holm's correction for {count} comparisons" if count > 1 else ""
    word = "significant" if adjusted <= SIGNIFICANT else "not significant"
    return f"{text}; p = {made.p:.2g}{corrected} (sign flips of concepts): {word} at {SIGNIFICANT:.0%}."


def _shown(mean: Mapping[str, Any]) -> str:
    if mean["value"] is None:
        return "–"
    span = "" if mean["low"] is None else f" [{mean['low']:.2f}, {mean['high']:.2f}]"
    return f"{mean['value']:.2f}{span}"
