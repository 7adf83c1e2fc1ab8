"""Every method, plain and with CRCE, on the bundled model, each with its own recipe.

    python benchmarks/erasure/methods.py

writes methods.json beside this file: rows as foundation.py makes them. Rows already there are kept, so a run that was
stopped goes on where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from foundation import flags, measure_all

from crce.backbones import load_backbone
from crce.training import ErasureConfig, load_config


METHODS = get_args(ErasureConfig.model_fields["method"].annotation)
TARGETS = ("cat", "dog", "car", "bird", "horse", "frog")


def main() -> None:
    parser = flags(__doc__, TARGETS, [0, 1, 2], Path(__file__).with_suffix(".json"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    args = parser.parse_args()
    cells = (
        (concept, load_config(None, {"method": method, "crce": crce, "seed": seed}))
        for seed in args.seeds
        for concept in args.concepts
        for method in args.methods
        for crce in (False, True)
    )
    facts = {"configs": {name: load_config(None, {"method": name}).model_dump() for name in METHODS}}
    measure_all(cells, args.images, args.out, facts, load_backbone("demo", device="cpu"))


if __name__ == "__main__":
    main()
