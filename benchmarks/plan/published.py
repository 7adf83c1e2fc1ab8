"""Well-known models by their configs alone, as a Hub id is read before it is downloaded.

    python benchmarks/plan/published.py

counts anew, from the configs in src/crce/backbones/published.json, what their erasure takes with the settings of every
recipe, and how they are sampled, and writes both into that file.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crce.backbones.defaults import defaults_of
from crce.backbones.sources import PLANNED, published_json
from crce.config import load_config
from crce.files import write_text


FILE = Path(__file__).parents[2] / "src/crce/backbones/published.json"
ENTRIES: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in json.loads(FILE.read_text(encoding="utf-8"))}
# pipeline, then by part: library, class, config
MODELS = {name: (entry["pipeline"], entry["parts"]) for name, entry in ENTRIES.items()}
# The other recipes train the same layers with the same adapter, or a text encoder; None is a model's own default.
RECIPES = (
    *((recipe, None) for recipe in ("sd15", "spm", "uce", "paper")),
    *((recipe, "nf4") for recipe in ("sd15", "spm")),
    *((None, kind) for kind in (None, "nf4")),
)


def folder(name: str, root: Path) -> Path:
    """The folder of a model; what its class has as a default is left out of the configs."""
    for part in MODELS[name][1]:
        file = root / name / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(published_json(ENTRIES[name], f"{part}/config.json")))
    (root / name / "model_index.json").write_text(json.dumps(published_json(ENTRIES[name], "model_index.json")))
    return root / name


def counted(name: str) -> dict[str, Any]:
    """What published.json says of a model beside its configs."""
    from crce.backbones.loading import pick_dtype
    from crce.backbones.memory_count import plan_memory
    from crce.backbones.memory_plan import Workload
    from crce.backbones.meta_model import read_meta_model

    plans = []
    with tempfile.TemporaryDirectory() as root:
        own = folder(name, Path(root)).rename(Path(root) / ENTRIES[name]["models"][0].rpartition("/")[2])
        wanted = {}
        for recipe, kind in RECIPES:
            settings = load_config(recipe, {"quantize": kind}, model=str(own))
            wanted[tuple(getattr(settings, key) for key in PLANNED)] = settings
        for settings in wanted.values():
            meta = read_meta_model(str(own))
            half = str(meta.backbone.half).removeprefix("torch.")
            work = Workload(settings.layers, settings.adapter, settings.rank, rows=2, trajectories=1)
            dtype = pick_dtype("bfloat16" if settings.quantize else half, meta.backbone.device)
            made = asdict(plan_memory(meta, work, dtype, settings.quantize))
            del made["work"]
            plans.append([*(getattr(settings, key) for key in PLANNED), made])
    defaults, pipe = defaults_of(meta.backbone), meta.backbone.pipe
    sampler, sides = type(pipe.scheduler).__name__, meta.backbone.latent_shape[1:]
    images = {"sampler": sampler, "resolution": [side * pipe.vae_scale_factor for side in sides]}
    return {
        "dtype": half,
        "kin": defaults.kin,
        "sampling": asdict(defaults.sampling),
        "images": images,
        "plans": plans,
    }


def main() -> None:
    table = [ENTRIES[name] | counted(name) for name in ENTRIES]
    write_text(FILE, json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
