"""Whether the few steps that a bundled model is drawn in by default give the verdicts of many:

    python benchmarks/demo/solver.py [--model demo-flow]

Ten targets of the atlas, on which the steps were not chosen, are erased in closed form, and measured twice on the same
seeds: with 20 steps of the model's own scheduler, and as by default. Writes solver.json, or flow_solver.json, beside
this file.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from crce.backbones import load_backbone
from crce.backbones.defaults import defaults_of
from crce.concepts import find_concepts
from crce.evaluate import evaluate
from crce.files import write_json
from crce.training import erase, load_config


LONG = 20
TARGETS = {
    "demo": ("banana", "castle", "elephant", "frog", "guitar", "helicopter", "owl", "pizza", "snowman", "vampire"),
    "demo-flow": ("banana", "castle", "elephant", "frog", "guitar", "cow", "bicycle", "pizza", "truck", "lion"),
}
NAMES = {"demo": "solver.json", "demo-flow": "flow_solver.json"}
NUMBERS = ("erased", "coref_erased", "kept", "H3")


def words(data: dict[str, Any]) -> list[str]:
    """What the judge saw in every image, of both models."""
    prompts = [prompt for group in data["groups"].values() for prompt in group["prompts"]]
    return [
        word for prompt in prompts for side in ("base", "erased") for word in (prompt["words"] or {}).get(side, [])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2, help="images of each prompt, by each model")
    parser.add_argument("--model", choices=list(TARGETS), default="demo")
    args = parser.parse_args()
    backbone = load_backbone(args.model, device="cpu")
    default = defaults_of(backbone).sampling
    shared: dict[str, Any] = {"backbone": backbone, "images_per_prompt": args.images, "phrases_per_group": 5}
    rows = []
    for concept in TARGETS[args.model]:
        with tempfile.TemporaryDirectory() as folder:
            concepts, config = find_concepts(concept), load_config("uce", model=args.model)
            run = erase(concepts, config=config, backbone=backbone, out=Path(folder) / "run")
            long, short = (evaluate(run, **shared, steps=steps) for steps in (LONG, None))
        said = list(zip(words(long.data), words(short.data), strict=True))
        row: dict[str, Any] = {"concept": concept, "images": len(said)}
        row["same_word"] = sum(one == other for one, other in said)
        for name, report in (("long", long), ("short", short)):
            row[name] = {number: report.summary[number]["value"] for number in NUMBERS}
        rows.append(row)
        print(row, flush=True)  # noqa: T201
    pairs = [(row["long"][n], row["short"][n]) for row in rows for n in NUMBERS]
    known = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    images = sum(row["images"] for row in rows)
    facts = {
        "long": {"solver": "the model's own", "steps": LONG},
        "short": {"solver": default.solver, "steps": default.steps},
        "same_word": round(sum(row["same_word"] for row in rows) / images, 4),
        "images": images,
        "mean_difference": round(sum(known) / len(known), 4),
        "rows": rows,
    }
    write_json(Path(__file__).with_name(NAMES[args.model]), facts)


if __name__ == "__main__":
    main()
