"""How models of every family are sampled and trained where the user says nothing, with the source of each number.

    python benchmarks/plan/defaults.py

writes defaults.json beside this file, from the code and the published configs of one model of each family.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import published

from crce.backbones.families import FAMILIES, backbone_class
from crce.backbones.meta_model import read_meta_model
from crce.config import load_config
from crce.files import write_json


def rows() -> list[dict[str, Any]]:
    """One row for each family and what its models are distilled to; "kin" is empty for those that are not.

    A distilled model brings its own sampler and resolution, which differ from one to the next: there they are None.
    """
    made = []
    with tempfile.TemporaryDirectory() as root:
        firsts: dict[str, str] = {}
        for name, (pipeline, _) in published.MODELS.items():
            firsts.setdefault(pipeline, name)
        for pipeline, name in firsts.items():
            folder = str(published.folder(name, Path(root)))
            meta = read_meta_model(folder)
            side = meta.backbone.latent_shape[1] * meta.backbone.pipe.vae_scale_factor
            settings, layers = load_config("sd15", model=name), load_config(model=folder).layers
            for kin, sampling in backbone_class(pipeline).defaults.items():
                if kin == "demo":
                    continue
                trained = {"ddim_steps": settings.ddim_steps, "guidance": settings.guidance} | sampling.training
                made.append(
                    {
                        "family": pipeline,
                        "kin": kin,
                        "sampler": None if sampling.guidance == 0 else type(meta.backbone.pipe.scheduler).__name__,
                        "steps": sampling.steps,
                        "guidance": sampling.guidance,
                        "resolution": None if sampling.guidance == 0 else side,
                        "x_t_levels": trained["ddim_steps"],
                        "x_t_guidance": trained["guidance"],
                        "scope": layers,
                        "rank": settings.rank,
                        "learning_rate": settings.learning_rate,
                        "dtype": str(backbone_class(pipeline).half).removeprefix("torch."),
                        "source": sampling.source,
                    }
                )
    assert {row["family"] for row in made} == set(FAMILIES)
    return made


if __name__ == "__main__":
    write_json(Path(__file__).with_suffix(".json"), {"rows": rows()})
