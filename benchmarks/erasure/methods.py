"""Every method, plain and with CRCE, on the bundled model, each with its own recipe.

    python benchmarks/erasure/methods.py

writes methods.json beside this file: rows as foundation.py makes them. Methods without a random choice have a row for
the first seed alone. ESD's rows of foundation.json are taken over where its settings are the same. Rows already there
are kept, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foundation import flags, measure_all

from crce.methods import METHODS
from crce.training import load_config


TARGETS = ("cat", "dog", "car", "bird", "horse", "frog")


def known_rows(concepts: list[str], seeds: list[int], images: int) -> list[dict[str, Any]]:
    """ESD's rows of foundation.json, if they were measured with the settings of today."""
    data = json.loads((Path(__file__).parent / "foundation.json").read_text())
    config = load_config(None, {"method": "esd"}).model_dump(mode="json")
    if any(config.get(name, value) != value for name, value in data["config"].items()):
        return []
    return [
        row
        for row in data["rows"]
        if row["concept"] in concepts and row["seed"] in seeds and row["settings"]["images_per_prompt"] == images
    ]


def main() -> None:
    parser = flags(__doc__, TARGETS, [0, 1, 2], Path(__file__).with_suffix(".json"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args = parser.parse_args()
    cells = (
        (concept, load_config(None, {"method": method, "crce": crce, "seed": seed}), None)
        for seed in args.seeds
        for concept in args.concepts
        for method in args.methods
        for crce in (False, True)
        if seed == args.seeds[0] or METHODS[method].random
    )
    facts = {"configs": {name: load_config(None, {"method": name}).model_dump(mode="json") for name in METHODS}}
    reused = "esd" in args.methods and args.device == "cpu"
    measure_all(cells, args, facts, known_rows(args.concepts, args.seeds, args.images) if reused else [])


if __name__ == "__main__":
    main()
