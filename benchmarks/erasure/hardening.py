"""What attacks bring back after ESD, ESD + CRCE, and ESD + CRCE with mixed or attacked corefs.

    python benchmarks/erasure/hardening.py

measures the grid robustness.yaml as `crce bench` does, and writes its results to results/robustness and, in short, to
hardening.json: rows {method, concept, seed, erased, coref_erased, kept, unrelated, H, attacks}, with the share of
images that show the target after each attack. Measured cells are taken from the cache, so a run that was stopped goes
on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grid_part import read_part

from crce.files import write_json


ERASURE = Path(__file__).parent
NAMES = {
    "esd": "esd",
    "esd+crce": "esd+crce",
    "esd hardened+crce": "esd+crce+hardened",
}
NUMBERS = ("concept", "seed", "erased", "coref_erased", "kept", "unrelated", "H")


def in_short(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows by their names in hardening.json."""
    return [
        {"method": NAMES[row["row"]]}
        | {name: row[name] for name in NUMBERS}
        | {"attacks": {name: found["after"]["value"] for name, found in row["attacks"].items()}}
        for row in rows
    ]


def main() -> None:
    part = read_part(__doc__, ERASURE / "robustness.yaml", Path(__file__).with_suffix(".json"))
    if part is None:
        return
    result = part.run(ERASURE / "results" / "robustness")
    write_json(part.out, {"rows": in_short(result.data["rows"])})
    print(result.table)


if __name__ == "__main__":
    main()
