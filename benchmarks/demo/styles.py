"""How well the judge of styles knows the bundled model's styles: `python benchmarks/demo/styles.py`.

Writes styles.json beside this file: the judge's accuracy on artwork of concepts that it never saw, and what it sees in
pictures that the bundled model draws of the scenes in each style. Those two say different things: a picture may be
taken for another style because the judge errs, or because the model draws it so.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import safe_open

from crce import demo
from crce.backbones import load_backbone
from crce.files import write_json
from crce.judges import load_judge
from crce.judges.judge import name_pictures
from crce.sampling import draw
from crce.training import load_config


STEPS, GUIDANCE, SEED = 20, 4.0, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="pictures of each scene in each style")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    backbone, judge = load_backbone("demo", device="cpu"), load_judge("emoji-style")
    with safe_open(demo.weights_path() / "style_judge.safetensors", "pt") as f:
        training = json.loads(f.metadata()["meta"])
    scenes = load_config(kind="style").scenes
    seeds = [SEED + k for k in range(args.images)]
    styles: dict[str, Any] = {}
    for style in judge.classes[judge.question(None)]:
        prompts = [f"{scene}, {style}" for scene in scenes for _ in seeds]
        drawn = draw(backbone.pipe, prompts, seeds * len(scenes), steps=STEPS, guidance=GUIDANCE)
        pictures = [picture for picture in drawn if picture is not None]
        if len(pictures) < len(prompts):
            raise SystemExit(f"{len(prompts) - len(pictures)} pictures failed to be drawn")
        words = name_pictures(judge, pictures, style, 0.0)
        styles[style] = {"recognised": round(words.count(style) / len(words), 4), "seen": dict(Counter(words))}
        print(style, styles[style], flush=True)
    result = {
        "model": backbone.revision,
        "judge": {"name": judge.name, "version": judge.version, "hash": judge.hash},
        "judge_on_unseen_concepts": training,
        "settings": {"steps": STEPS, "guidance": GUIDANCE, "seed": SEED, "images": args.images, "scenes": scenes},
        "recognised": round(sum(s["recognised"] for s in styles.values()) / len(styles), 4),
        "styles": styles,
    }
    write_json(args.out, result)


if __name__ == "__main__":
    main()
