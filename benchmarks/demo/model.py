"""What a bundled model draws, as its judge sees it: `python benchmarks/demo/model.py [--model demo-flow]`.

Writes model.json, or flow_model.json, beside this file: the share of pictures that the judge recognises, over every
concept's name and over the synonyms that no training caption held, and the judge's own accuracy on artwork it never
saw. Draws the contact sheet docs/contact_sheet.png, or docs/flow_contact_sheet.png, one picture of every concept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from crce import demo
from crce.backbones import load_backbone
from crce.files import write_json
from crce.judges import load_judge
from crce.sampling import draw
from crce.sampling.pictures import contact_sheet


ROOT = Path(__file__).resolve().parents[2]
SAMPLING = {"demo": (20, 4.0), "demo-flow": (20, 3.5)}  # steps and guidance
PREFIX = {"demo": "", "demo-flow": "flow_"}  # of the names of the files
SEED = 1000
COLUMNS = 9  # of the contact sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4, help="pictures per phrase")
    parser.add_argument("--model", choices=list(SAMPLING), default="demo")
    parser.add_argument("--out", type=Path, help="instead of the file beside this one")
    parser.add_argument("--sheet", type=Path, help="instead of the picture in docs")
    args = parser.parse_args()
    backbone, judge = load_backbone(args.model, device="cpu"), load_judge("emoji")
    steps, guidance = SAMPLING[args.model]
    concepts = demo.world()["concepts"]
    result: dict[str, Any] = {
        "model": backbone.revision,
        "parameters": sum(p.numel() for p in backbone.network.parameters()),
        "judge": {"name": judge.name, "version": judge.version, "hash": judge.hash, "classes": len(judge.classes)},
        "judge_on_unseen_artwork": json.loads((demo.weights_path() / "judge.json").read_text(encoding="utf-8")),
        "settings": {"steps": steps, "guidance": guidance, "seed": SEED, "images": args.images},
    }
    for group in ("names", "held_out"):
        phrases = [(c["name"], p) for c in concepts for p in ([c["name"]] if group == "names" else c["held_out"])]
        prompts = [phrase for _, phrase in phrases for _ in range(args.images)]
        seeds = [SEED + k for _ in phrases for k in range(args.images)]
        pictures = draw(backbone.pipe, prompts, seeds, steps=steps, guidance=guidance)
        drawn = [picture for picture in pictures if picture is not None]
        if len(drawn) < len(pictures):
            raise SystemExit(f"{len(pictures) - len(drawn)} pictures failed to be drawn")
        words = [judge.classes[k] for k in judge.probs(drawn).argmax(1).tolist()]
        hits = [
            sum(word == name for word in words[i * args.images : (i + 1) * args.images])
            for i, (name, _) in enumerate(phrases)
        ]
        result[group] = {
            "recognised": round(sum(hits) / len(words), 4),
            "pictures": len(words),
            "phrases": {phrase: hit for (_, phrase), hit in zip(phrases, hits, strict=True)},
        }
        print(group, result[group]["recognised"], len(words), flush=True)
        if group == "names":
            shown = list(zip([name for name, _ in phrases], drawn[:: args.images], strict=True))
            rows = [shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)]
            sheet = contact_sheet([(", ".join(n for n, _ in row), [p for _, p in row]) for row in rows])
            sheet.save(args.sheet or ROOT / "docs" / f"{PREFIX[args.model]}contact_sheet.png", optimize=True)
    write_json(args.out or Path(__file__).with_name(f"{PREFIX[args.model]}model.json"), result)


if __name__ == "__main__":
    main()
