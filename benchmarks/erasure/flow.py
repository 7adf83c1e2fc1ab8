"""Every method that fits the bundled flow transformer, plain and with CRCE: does what is not erased collapse?

    python benchmarks/erasure/flow.py

writes flow.json beside this file: a row for each method, its layers (`scope`), concept and seed. ESD trains several
sets of layers; those that text and image share are trained as they are, and with the change kept to the tokens of the
text. Rows already there are kept, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from crce.backbones import load_backbone
from crce.backbones.loading import find_model
from crce.concepts import find_concepts
from crce.evaluate import evaluate
from crce.files import write_json
from crce.methods import METHODS
from crce.sampling import ImageCache
from crce.training import ErasureConfig, erase, load_config
from crce.training.run_folder import HEADLINES


PHRASES = 5  # of each list of the concept set; the held-out lists have no more
MODEL = "demo-flow"
TARGETS = (  # of each the model draws a coref that is held out
    "cat",
    "dog",
    "car",
    "airplane",
    "bird",
    "ship",
    "horse",
    "frog",
    "santa claus",
    "robot",
    "princess",
    "rose",
)
SCOPES = {
    "text": {"layers": "text"},
    # these and the keys and values of the single-stream blocks, which text and image share
    "shared": {"target_modules": r"transformer_blocks\.\d+\.attn\.add_[kv]_proj|single_.+\.attn\.to_[kv]"},
    "kv": {"layers": "kv"},  # of the text, in the double-stream blocks
    "masked": {"layers": "kv", "text_tokens_only": True},  # the layers of "shared"
}
VARIANTS = {  # by what stands in a row, its method and scope; those that the others are compared with are first
    ("esd", "text"): {},
    ("uce", "text"): {"method": "uce"},  # closed forms edit the layers that read the text encoders' states
    ("rece", "text"): {"method": "rece"},
    ("speed", "text"): {"method": "speed"},
    # these layers and the second block, on what it reads in a forward pass; guidance of states is not needed then
    ("uce", "deep"): {"method": "uce", "deep": True, "state_guidance": 0.0},
    ("speed", "deep"): {"method": "speed", "deep": True, "state_guidance": 0.0},
    ("esd", "shared"): {},
    ("esd", "kv"): {},
    ("esd", "masked"): {},
    ("gem", "text"): {"method": "gem"},
    ("esd", "text surgery"): {"layers": "text", "gradient_surgery": True},
}

Cell = tuple[str, ErasureConfig, str]  # a concept, the settings, and the name of their layers


@contextmanager
def counted(backbone: Any) -> Iterator[list[int]]:
    """Inside, the list holds the batch size of every forward of the denoiser."""
    sizes: list[int] = []
    handle = backbone.network.register_forward_pre_hook(
        lambda _, __, named: sizes.append(len(named["hidden_states"])), with_kwargs=True
    )
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
    row["groups"] = {
        name: {key: group[key] for key in ("measures", "value", "n", "left_out")}
        for name, group in report.data["groups"].items()
    }
    return row | {"settings": report.data["settings"], "device": backbone.device.type, "scope": scope}


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over concepts and seeds; a number that could not be measured is left out and counted."""
    table: dict[str, dict[str, float]] = {}
    for method, crce, scope in dict.fromkeys((row["method"], row["crce"], row["scope"]) for row in rows):
        part = [row for row in rows if (row["method"], row["crce"], row["scope"]) == (method, crce, scope)]
        own = table[f"{method}{'+crce' * crce} {scope}"] = {"rows": len(part)}
        for number in HEADLINES:
            values = [row[number] for row in part if row[number] is not None]
            own[number] = round(statistics.fmean(values), 4) if values else float("nan")
            own[f"{number}_unmeasured"] = len(part) - len(values)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="+", default=list(TARGETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--images", type=int, default=4, help="pictures per prompt")
    parser.add_argument("--device", default="cpu", help="where to erase and draw")
    parser.add_argument("--variants", nargs="+", default=[" ".join(key) for key in VARIANTS])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    settings = {
        (method, scope): (own if METHODS[method].solved else SCOPES.get(scope, {}) | own)
        for (method, scope), own in VARIANTS.items()
    }
    cells: list[Cell] = [
        (concept, load_config(None, own | {"crce": crce, "seed": seed}, model=MODEL), scope)
        for seed in args.seeds
        for (method, scope), own in settings.items()
        if f"{method} {scope}" in args.variants
        for concept in args.concepts
        for crce in (False, True)
        if seed == args.seeds[0] or METHODS[method].random
    ]
    configs = {
        " ".join(key): load_config(None, own, model=MODEL).model_dump(mode="json") for key, own in settings.items()
    }
    rows: list[dict[str, Any]] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    facts = {"configs": configs, "model": find_model(MODEL)[1], "threads": torch.get_num_threads()}
    backbone = load_backbone(MODEL, device=args.device, dtype="float32")
    caches: dict[str, ImageCache] = defaultdict(ImageCache)  # what the model drew before any erasure
    done = {(row["method"], row["crce"], row["concept"], row["seed"], row["scope"]) for row in rows}
    for cell in cells:
        concept, config, scope = cell
        key = (config.method, config.crce, concept, config.seed, scope)
        if key in done:
            continue
        row = measure(cell, backbone, caches[concept], args.images)
        rows.append(row)
        write_json(args.out, {"rows": rows, "means": means(rows), **facts})
        print(*key, *(f"{name} {row[name]}" for name in (*HEADLINES, "seconds", "forwards")), flush=True)


if __name__ == "__main__":
    main()
