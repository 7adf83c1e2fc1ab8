"""Every method, plain and with CRCE, on the bundled model, each with its own recipe.

    python benchmarks/erasure/methods.py

writes methods.json beside this file: rows as foundation.py makes them. Rows already there are kept, so a run that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

from foundation import CONCEPTS, NUMBERS, means, measure

from crce.backbones import load_backbone
from crce.files import write_json
from crce.training import ErasureConfig, load_config


METHODS = get_args(ErasureConfig.model_fields["method"].annotation)
TARGETS = ("cat", "dog", "car", "bird", "horse", "frog")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--concepts", nargs="+", default=list(TARGETS), choices=CONCEPTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=4, help="pictures per prompt")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    done = {(row["method"], row["crce"], row["concept"], row["seed"]) for row in rows}
    backbone = load_backbone("demo", device="cpu")
    caches: dict[str, dict] = {concept: {} for concept in args.concepts}
    for seed in args.seeds:
        for concept in args.concepts:
            for method in args.methods:
                for crce in (False, True):
                    if (method, crce, concept, seed) in done:
                        continue
                    config = load_config(None, {"method": method, "crce": crce, "seed": seed})
                    rows.append(row := measure(concept, config, backbone, caches[concept], args.images))
                    recipes = {name: load_config(None, {"method": name}).model_dump() for name in METHODS}
                    write_json(
                        args.out,
                        {"rows": rows, "means": means(rows), "configs": recipes, "model": backbone.revision},
                    )
                    shown = " ".join(f"{name} {row[name]}" for name in (*NUMBERS, "seconds", "forwards"))
                    print(f"{concept:12} {method} crce={crce!s:5} seed={seed} {shown}", flush=True)
    print(json.dumps(means(rows), indent=2))


if __name__ == "__main__":
    main()
