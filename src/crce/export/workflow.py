"""A ComfyUI workflow that loads a base model and an exported LoRA and generates the same images before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from crce.backbones.families import FAMILIES, backbone_class
from crce.export.base import Base
from crce.files import write_json


if TYPE_CHECKING:
    from crce.training import Erasure

DISTILLED_GUIDANCE = ("FluxPipeline",)  # whose guidance is an input of the network: ComfyUI's own default is 3.5


def write_workflow(erasure: Erasure, base: Base, lora: Path) -> Path | None:
    """Write `<lora>-comfyui.json` beside a LoRA; None where ComfyUI can't load the base model.

    It is in ComfyUI's API format, which its editor opens too. The checkpoint must be chosen there, unless the run
    erased from a single file.
    """
    if base.is_bundled or base.pipeline is None or base.pipeline not in FAMILIES:
        return None
    graph = json.loads(Path(__file__).with_name("workflow.json").read_text(encoding="utf-8"))
    family, sampling = backbone_class(base.pipeline), erasure.sampling
    single = Path(base.public_name).suffix == ".safetensors"
    name = base.public_name.rpartition("/")[2]
    graph["base"]["inputs"]["ckpt_name"] = name if single else f"CHOOSE-{name}.safetensors"
    graph["lora"]["inputs"]["lora_name"] = lora.name
    graph["prompt"]["inputs"]["text"] = erasure.sets[0].target
    architectures = [a for a in family.architectures if a.kin == base.kin] or list(family.architectures)
    side = erasure.config.resolution or (architectures[0].resolution if architectures else 512)
    graph["latent"]["inputs"] |= {"width": side, "height": side}
    flow = family.component == "transformer"
    if flow:
        flux2 = base.pipeline == "Flux2KleinPipeline"  # whose latents are patches; the others have 16 channels
        graph["latent"]["class_type"] = "EmptyFlux2LatentImage" if flux2 else "EmptySD3LatentImage"
    unguided = base.pipeline in DISTILLED_GUIDANCE or sampling["guidance"] <= 1
    for sampler in ("draw_before", "draw_after"):
        graph[sampler]["inputs"] |= {
            "steps": sampling["steps"],
            "cfg": 1.0 if unguided else sampling["guidance"],
            "scheduler": "simple" if flow else "normal",
        }
    path = lora.with_name(f"{lora.stem}-comfyui.json")
    write_json(path, graph)
    return path
