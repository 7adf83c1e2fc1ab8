"""How close a retain can be: what is kept of every phrase, by its distance in meaning from what was erased.

    crce bench benchmarks/erasure/entangled.yaml --out benchmarks/erasure/results/entangled
    python benchmarks/erasure/closeness.py

reads the runs that the benchmark left in its cache and writes closeness.json beside its results: for every row of the
table, and for trained and unseen phrases apart, the share that is kept in five bins of distance. Distances are those
of `crce evaluate --quality`: 1 less the cosine of the bundled sentence embedding. The bins hold equally many pairs of
a target and a phrase, and are the same for all rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crce.bench.cells import CACHE
from crce.evaluate.prompts import KEEPING
from crce.evaluate.quality import BINS, embedding_distances
from crce.files import write_json


RESULTS = Path(__file__).parent / "results" / "entangled"
SIDES = {"given to the method": ("retain",), "never given to it": tuple(g for g in KEEPING if g != "retain")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder that the benchmark wrote")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the benchmark kept its runs")
    args = parser.parse_args()
    rows = json.loads((args.results / "results.json").read_text(encoding="utf-8"))["rows"]
    found = [
        (row["row"], side, row["concept"], text, kept)
        for row in rows
        for side, text, kept in kept_phrases(args.cache / row["run"] / "report.json")
    ]
    away = distances({(concept, text) for _, _, concept, text, _ in found})
    edges = np.quantile(sorted(away.values()), np.linspace(0, 1, BINS + 1)[1:-1])
    bins = {pair: int(np.searchsorted(edges, distance, side="right")) for pair, distance in away.items()}
    table = []
    for name in dict.fromkeys(row["row"] for row in rows):
        for side in SIDES:
            own = [(bins[concept, text], kept) for n, s, concept, text, kept in found if (n, s) == (name, side)]
            parts = [[kept for b, kept in own if b == i] for i in range(BINS)]
            table.append(
                {
                    "row": name,
                    "phrases": side,
                    "kept": [round(float(np.mean(part)), 4) if part else None for part in parts],
                    "n": [len(part) for part in parts],
                }
            )
    write_json(args.results / "closeness.json", {"edges": [round(float(edge), 4) for edge in edges], "rows": table})
    for line in table:
        print(line)


def kept_phrases(report: Path) -> Iterator[tuple[str, str, float]]:
    """Side, text and the share kept of the phrases of one run that the base model draws."""
    groups = json.loads(report.read_text(encoding="utf-8"))["groups"]
    for side, names in SIDES.items():
        for name in names:
            for prompt in groups[name]["prompts"]:
                if prompt["left_out"] is None:
                    yield side, prompt["text"], min(1.0, prompt["erased"] / prompt["base"])


def distances(pairs: set[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Of each phrase from its target."""
    found = {}
    for concept in sorted({concept for concept, _ in pairs}):
        texts = sorted(text for own, text in pairs if own == concept)
        found |= {(concept, text): d for text, d in zip(texts, embedding_distances(concept, texts), strict=True)}
    return found


if __name__ == "__main__":
    main()
