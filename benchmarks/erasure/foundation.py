"""ESD alone and ESD with CRCE on the bundled model, at the same layers, rate, steps and seeds.

    python benchmarks/erasure/foundation.py

writes foundation.json beside this file: a row for each method, concept and seed, and the means over concepts. Rows
already there are kept, so a run that was stopped goes on where it was; delete the file to measure anew.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from crce.backbones import load_backbone
from crce.backbones.loading import find_model
from crce.concepts import find_concepts
from crce.evaluate import evaluate
from crce.evaluate.prompts import HEADLINES
from crce.files import write_json
from crce.sampling import ImageCache
from crce.training import ErasureConfig, erase, load_config


CONCEPTS = ("cat", "dog", "car", "airplane", "bird", "apple", "ship", "horse", "frog", "santa claus")
PHRASES = 5  # of each list of the concept set; the held-out lists have no more

Cell = tuple[str, ErasureConfig, str | None]  # a concept, the settings, and the name of their layers where these vary


@contextmanager
def counted(backbone: Any) -> Iterator[list[int]]:
    """Inside, the list holds the batch size of every forward of the denoiser."""
    sizes: list[int] = []

    def count(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        sizes.append(len(arguments[0] if arguments else named["hidden_states"]))

    handle = backbone.network.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


def measure(cell: Cell, backbone: Any, cache: ImageCache, images: int) -> dict[str, Any]:
    """Erase one concept and score it; the run itself is thrown away."""
    concept, config, scope = cell
    with tempfile.TemporaryDirectory() as folder:
        with counted(backbone) as sizes:
            run = erase(find_concepts(concept), config=config, backbone=backbone, out=Path(folder) / "run")
        report = evaluate(
            run, images_per_prompt=images, phrases_per_group=PHRASES, backbone=backbone, image_cache=cache, batch=32
        )
    row: dict[str, Any] = {"method": config.method, "crce": config.crce, "concept": concept, "seed": config.seed}
    row |= {name: report.summary[name]["value"] for name in HEADLINES}
    row["seconds"] = run.info["seconds"]["train"]
    row["forwards"] = sum(sizes)  # of the denoiser, counted in latents
    groups = report.data["groups"]
    row["groups"] = {
        name: {key: group[key] for key in ("measures", "value", "n", "left_out")} for name, group in groups.items()
    }
    row["settings"] = report.data["settings"]
    row["device"] = backbone.device.type
    return row | ({"scope": scope, "unrelated": groups["unrelated"]["value"]} if scope else {})


class _Worker:
    """The model, and what it drew before any erasure, kept from one cell to the next."""

    def __init__(self, model: str, device: str) -> None:
        self.backbone = load_backbone(model, device=device, dtype="float32")
        self.caches: dict[str, ImageCache] = defaultdict(ImageCache)

    def measure(self, cell: Cell, images: int) -> dict[str, Any]:
        return measure(cell, self.backbone, self.caches[cell[0]], images)


_worker: _Worker  # of a process of its own


def _begin(model: str, device: str) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = _Worker(model, device)


def _measure(cell: Cell, images: int) -> dict[str, Any]:
    return _worker.measure(cell, images)


def _measured(cells: list[Cell], model: str, images: int, device: str, jobs: int) -> Iterator[dict[str, Any]]:
    """The rows of all cells, each as soon as it is there."""
    if jobs == 1:
        worker = _Worker(model, device)
        yield from (worker.measure(cell, images) for cell in cells)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (model, device)) as pool:
        futures = [pool.submit(_measure, cell, images) for cell in cells]
        for future in as_completed(futures):
            if error := future.exception():  # the others go on; the row is missing, and the next run tries again
                print(f"a cell failed: {error!r}", file=sys.stderr)
                continue
            yield future.result()


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over concepts and seeds; a number that could not be measured is left out and counted."""
    table: dict[str, dict[str, float]] = {}
    for key in dict.fromkeys((row["method"], row["crce"], row.get("scope")) for row in rows):
        part = [row for row in rows if (row["method"], row["crce"], row.get("scope")) == key]
        method, crce, scope = key
        name = (f"{method}+crce" if crce else method) + (f" {scope}" if scope else "")
        table[name] = {"rows": len(part)}
        for number in HEADLINES:
            values = [row[number] for row in part if row[number] is not None]
            table[name][number] = round(statistics.fmean(values), 4) if values else float("nan")
            table[name][f"{number}_unmeasured"] = len(part) - len(values)
    return table


def measure_all(
    cells: Iterable[Cell],
    args: argparse.Namespace,
    facts: dict[str, Any],
    known: Iterable[dict[str, Any]] = (),
    model: str = "demo",
) -> None:
    """Measure every concept and config that the JSON file does not hold yet, and write it after each.

    Args:
        cells: concepts with their configs, in the order in which they are begun.
        args: what `flags` read.
        facts: what else stands in the file.
        known: rows of the same settings measured before, taken over as they are.
        model: the bundled model that is erased from.
    """
    rows: list[dict[str, Any]] = json.loads(args.out.read_text())["rows"] if args.out.exists() else list(known)
    done = {(row["method"], row["crce"], row["concept"], row["seed"], row.get("scope")) for row in rows}
    wanted = [cell for cell in cells if (cell[1].method, cell[1].crce, cell[0], cell[1].seed, cell[2]) not in done]
    facts = facts | {"model": find_model(model)[1], "jobs": args.jobs}
    for row in _measured(wanted, model, args.images, args.device, args.jobs):
        rows.append(row)
        write_json(args.out, {"rows": rows, "means": means(rows), **facts, "threads": torch.get_num_threads()})
        shown = " ".join(f"{name} {row[name]}" for name in (*HEADLINES, "seconds", "forwards") if name in row)
        name = f"{row['concept']:12} {row['method']} crce={row['crce']!s:5} {row.get('scope', '')}"
        print(f"{name} seed={row['seed']} {shown}", flush=True)
    print(json.dumps(means(rows), indent=2))


def flags(description: str | None, concepts: Iterable[str], seeds: list[int], out: Path) -> argparse.ArgumentParser:
    """The flags that the erasure benchmarks share, with their defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="+", default=list(concepts))
    parser.add_argument("--seeds", nargs="+", type=int, default=seeds)
    parser.add_argument("--images", type=int, default=4, help="pictures per prompt")
    parser.add_argument("--device", default="cpu", help="where to erase and draw")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side, each with one thread")
    parser.add_argument("--out", type=Path, default=out)
    return parser


def main() -> None:
    args = flags(__doc__, CONCEPTS, [0], Path(__file__).with_suffix(".json")).parse_args()
    cells = (
        (concept, load_config("demo", {"crce": crce, "seed": seed}), None)
        for concept in args.concepts
        for seed in args.seeds
        for crce in (False, True)
    )
    facts = {"config": load_config("demo").model_dump(mode="json")}
    measure_all(cells, args, facts)


if __name__ == "__main__":
    main()
