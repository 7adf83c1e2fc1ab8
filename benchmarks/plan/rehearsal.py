"""What `crce plan --time` says of a default run, and what the run takes, on tiny models of five families:

    python benchmarks/plan/rehearsal.py

Writes rehearsal.json beside this file: {family, images, seconds: {part: {planned, taken, ratio}}}. The pipelines and
the CLIP that judges are of the real classes with random weights; nothing of them can be measured, so a report ends the
first time that it may. The clock is the processor's time of this process on one thread, so that other work on the
machine does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path


FAMILIES = {  # the kin that its name says, which takes a few steps, and the side of its images
    "sd1": ("turbo", 32),
    "sdxl": ("turbo", 32),
    "sd3": ("turbo", 32),
    "flux_schnell": ("schnell", 32),
    "z_image": ("turbo", 512),
}
SETS = """\
target: cat
corefs: [kitty, {text: feline, held_out: true}, {text: kitten, held_out: true}]
retains: [dog, {text: fox, held_out: true}, {text: wolf, held_out: true}]
"""


def cached_clip(root: Path) -> None:
    """A tiny CLIP in a cache of the Hub, under the name of the default judge."""
    from judges import models

    from crce.judges.table import DEFAULT_CLIP

    repository = root / "hub" / f"models--{DEFAULT_CLIP.replace('/', '--')}"
    models.clip(repository / "snapshots" / "0")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0")


def crce(*words: object) -> str:
    """What a command prints."""
    from crce.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([str(word) for word in words])
    if code:
        raise SystemExit(f"crce {words[0]} ended with {code}")
    return out.getvalue()


def rehearse(name: str, root: Path, flags: list[str]) -> dict[str, object]:
    """The row of a family."""
    import tiny_families

    kin, side = FAMILIES[name]
    model = tiny_families.saved(name, root).rename(root / f"{name}-{kin}")
    (root / "cat.yaml").write_text(SETS)
    own, run = [root / "cat.yaml", "--model", model, "--device", "cpu"], root / f"run-{name}"
    planned = json.loads(crce("plan", *own, "--resolution", side, "--time", "--json", *flags))["run"]
    crce("erase", *own, "--resolution", side, "--out", run, *flags)
    info, report = (json.loads((run / file).read_text()) for file in ("run.json", "report.json"))
    taken = {"loading": info["seconds"]["load"], "steps": info["seconds"]["train"]}
    taken["images"] = sum(report["seconds"].values())
    parts = {part: (planned["seconds"][part], taken[part]) for part in taken}
    parts["all"] = (sum(a for a, _ in parts.values()), sum(b for _, b in parts.values()))
    return {
        "family": name,
        "images": {"planned": planned["images"], "taken": len(list((run / "pictures").rglob("*.png")))},
        "seconds": {
            part: {"planned": round(a, 2), "taken": round(b, 2), "ratio": round(a / b, 2)}
            for part, (a, b) in parts.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--config", help="recipe, instead of the default: a shorter one for a trial")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    sys.path[:0] = [str(Path(__file__).parents[2] / "tests")]
    time.perf_counter = time.process_time
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_HOME": folder, "HF_HUB_OFFLINE": "1"}
        cached_clip(Path(folder))
        import torch

        torch.set_num_threads(1)
        flags = [] if args.config is None else ["--config", args.config]
        rows = [rehearse(name, Path(folder), flags) for name in args.families]
    from crce.files import write_json

    write_json(args.out, {"clock": "processor seconds of one thread", "rows": rows})
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
