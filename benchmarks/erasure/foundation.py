"""ESD alone and ESD with CRCE on the bundled model, at the same layers, rate, steps and seeds.

    python benchmarks/erasure/foundation.py

writes foundation.json beside this file: a row for each method, concept and seed, and the means over concepts. Rows
already there are kept, so a run that was stopped goes on where it was; delete the file to measure anew.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from crce.backbones import load_backbone
from crce.concepts import find_concepts
from crce.evaluate import evaluate
from crce.files import write_json
from crce.training import ErasureConfig, erase, load_config


CONCEPTS = ("cat", "dog", "car", "airplane", "bird", "apple", "ship", "horse", "frog", "santa claus")
PHRASES = 5  # of each list of the concept set; the held-out lists have no more
NUMBERS = ("erased", "coref_erased", "kept", "H")


@contextmanager
def counted(backbone: Any) -> Iterator[list[int]]:
    """Inside, the list holds the batch size of every forward of the denoiser."""
    sizes: list[int] = []
    handle = backbone.network.register_forward_pre_hook(lambda _, arguments: sizes.append(len(arguments[0])))
    try:
        yield sizes
    finally:
        handle.remove()


def measure(concept: str, config: ErasureConfig, backbone: Any, cache: dict, images: int) -> dict[str, Any]:
    """Erase one concept and score it; the run itself is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        with counted(backbone) as sizes:
            run = erase(find_concepts(concept), config=config, backbone=backbone, out=Path(folder) / "run")
        report = evaluate(
            run, images_per_prompt=images, phrases_per_group=PHRASES, backbone=backbone, base_cache=cache, batch=32
        )
    row: dict[str, Any] = {"method": config.method, "crce": config.crce, "concept": concept, "seed": config.seed}
    row |= {name: report.summary[name]["value"] for name in NUMBERS}
    row["seconds"] = run.info["seconds"]["train"]
    row["forwards"] = sum(sizes)  # of the denoiser, counted in latents
    groups = report.data["groups"]
    row["groups"] = {
        name: {key: group[key] for key in ("measures", "value", "n", "left_out")} for name, group in groups.items()
    }
    row["settings"] = report.data["settings"]
    return row


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over concepts and seeds; a number that could not be measured is left out and counted."""
    table: dict[str, dict[str, float]] = {}
    for method, crce in dict.fromkeys((row["method"], row["crce"]) for row in rows):
        part = [row for row in rows if (row["method"], row["crce"]) == (method, crce)]
        name = f"{method}+crce" if crce else method
        table[name] = {"rows": len(part)}
        for number in NUMBERS:
            values = [row[number] for row in part if row[number] is not None]
            table[name][number] = round(statistics.fmean(values), 4) if values else float("nan")
            table[name][f"{number}_unmeasured"] = len(part) - len(values)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="+", default=list(CONCEPTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, default=4, help="pictures per prompt")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    done = {(row["crce"], row["concept"], row["seed"]) for row in rows}
    backbone = load_backbone("demo", device="cpu")
    for concept in args.concepts:
        cache: dict = {}
        for seed in args.seeds:
            for crce in (False, True):
                if (crce, concept, seed) in done:
                    continue
                settings = load_config("demo", {"crce": crce, "seed": seed})
                rows.append(measure(concept, settings, backbone, cache, args.images))
                config = load_config("demo").model_dump()
                result = {"rows": rows, "means": means(rows), "config": config, "model": backbone.revision}
                write_json(args.out, result | {"threads": torch.get_num_threads()})
                shown = " ".join(f"{name} {rows[-1][name]}" for name in (*NUMBERS, "seconds"))
                print(f"{concept:12} crce={crce!s:5} seed={seed} {shown}", flush=True)
    print(json.dumps(means(rows), indent=2))


if __name__ == "__main__":
    main()
