"""Two concepts erased together in one run, and combined from a run of each: what does the sum of two LoRAs cost?

    python benchmarks/erasure/combined.py

writes combined.json beside this file: of each pair a row for the run that was trained on both ("together") and one for
the sum of two runs ("combined"), whose steps are as many for each concept alone. Rows and runs that are there are
kept, so that what was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from crce.backbones import load_backbone
from crce.concepts import find_concepts
from crce.evaluate import evaluate
from crce.files import slug, write_json
from crce.sampling import ImageCache
from crce.training import Erasure, erase, load_config, resume
from crce.training.combine import combine


PAIRS = (("cat", "car"), ("airplane", "apple"), ("dog", "horse"))  # the last are retains of one another
STEPS = 110  # of a run of one concept, as the recipe has, and twice as many of both
NUMBERS = ("H", "erased", "coref_erased", "kept", "unrelated")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=[",".join(pair) for pair in PAIRS], metavar="A,B")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a run of one concept")
    parser.add_argument("--images", type=int, default=4, help="pictures per prompt")
    parser.add_argument("--runs", type=Path, default=Path("runs/combined"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    backbone = load_backbone("demo", device="cpu", dtype="float32")
    facts = {"images_per_prompt": args.images, "config": load_config("demo", {"steps": args.steps}).model_dump()}
    rows = json.loads(args.out.read_text(encoding="utf-8"))["rows"] if args.out.exists() else []

    def run(*concepts: str) -> Erasure:
        folder = args.runs / f"{slug(' '.join(concepts))}-{args.steps}"
        if (folder / "run.json").exists():
            return resume(folder, backbone=backbone)
        config = load_config("demo", {"steps": args.steps * len(concepts)})
        return erase([find_concepts(name) for name in concepts], config=config, backbone=backbone, out=folder)

    for text in args.pairs:
        pair, cache = text.split(","), ImageCache()
        for how in ("together", "combined"):
            if any((row["concepts"], row["how"], row["steps"]) == (pair, how, args.steps) for row in rows):
                continue
            folder = args.runs / f"{slug(text)}-{how}-{args.steps}"
            if how == "together":
                done = run(*pair)
            elif (folder / "run.json").exists():
                done = Erasure.load(folder)
            else:
                done = combine([run(name).folder for name in pair], folder)
            report = evaluate(done, images_per_prompt=args.images, backbone=backbone, image_cache=cache, batch=32)
            row = {"concepts": pair, "how": how, "steps": args.steps}
            row |= {name: report.summary[name]["value"] for name in NUMBERS}
            row["targets"] = {each["target"]: each["summary"]["erased"]["value"] for each in report.targets}
            rows.append(row)
            write_json(args.out, {"rows": rows, **facts})
            print(" ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
