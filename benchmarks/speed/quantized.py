"""Whether an erasure on a base model in NF4 is as good as one on its published weights:

    python benchmarks/speed/quantized.py

Each target is erased from the bundled model by ESD with CRCE, the recipe "demo", from both bases with the same seed.
Both adapters are measured on the published base, by the default report, and that of NF4 on its own base too. Writes
quantized.json beside this file: {concept, base, evaluated_on, H, erased, coref_erased, kept, unrelated, seconds}, and
the means of H with the difference of the two that were measured on the published base, whose bar is 0.02. Rows that
are there already are kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from crce.concepts import find_concepts
from crce.evaluate import evaluate
from crce.files import write_json
from crce.training import erase, load_config
from crce.training.run_folder import HEADLINES


CONCEPTS = ("cat", "dog", "car", "airplane", "bird", "apple", "ship", "horse")
BAR = 0.02
PUBLISHED = "published"
MEASURED: dict[str, tuple[str, ...]] = {PUBLISHED: (PUBLISHED,), "nf4": (PUBLISHED, "nf4")}  # by base


def kind(base: str) -> str | None:
    return None if base == PUBLISHED else base


def measured(concept: str, base: str, seed: int) -> list[dict[str, Any]]:
    """The rows of one erasure."""
    rows = []
    concepts = find_concepts(concept)
    with tempfile.TemporaryDirectory() as folder:
        config = load_config("demo", {"quantize": kind(base), "seed": seed}, kind=concepts.kind)
        run = erase(concepts, config=config, out=Path(folder) / "run", device="cpu")
        for on in MEASURED[base]:
            summary = evaluate(run, quantize=kind(on), device="cpu").summary
            numbers = {name: summary[name]["value"] for name in ("H", *HEADLINES)}
            seconds = run.info["seconds"]["train"]
            rows.append({"concept": concept, "base": base, "evaluated_on": on, **numbers, "seconds": seconds})
    return rows


def means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean H over the targets that have all rows, each with an H."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    for row in rows:
        found.setdefault(row["concept"], {})[row["base"], row["evaluated_on"]] = row["H"]
    whole = [own for own in found.values() if len(own) == 3 and None not in own.values()]
    if not whole:
        return {"targets": 0}
    mean = {key: statistics.mean(own[key] for own in whole) for key in whole[0]}
    change = mean["nf4", PUBLISHED] - mean[PUBLISHED, PUBLISHED]
    named = {f"{base} on {on}": round(value, 4) for (base, on), value in mean.items()}
    return {"targets": len(whole), **named, "difference": round(change, 4), "within_bar": abs(change) <= BAR}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="+", default=list(CONCEPTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    for concept in args.concepts:
        for base in MEASURED:
            if any((row["concept"], row["base"]) == (concept, base) for row in rows):
                continue
            rows += measured(concept, base, args.seed)
            write_json(args.out, {"seed": args.seed, "means": means(rows), "rows": rows})
            print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
