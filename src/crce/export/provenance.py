"""The metadata of exported files: concept set, base model, method and settings.

The keys of crce's own adapters stay (`crce`, `base_model`, `base_revision`, `concepts`, `config`). Added are those of
the Stability metadata standard (`modelspec.*`) and those that kohya's trainer writes (`ss_*`), from which
AUTOMATIC1111 knows the models that a LoRA is for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crce import __version__
from crce.concepts import ConceptSet, dump_concepts
from crce.export.base import Base
from crce.files import slug
from crce.methods.table import is_solved


if TYPE_CHECKING:
    from crce.backbones.backbone import Architecture
    from crce.training import Erasure


NAMED = 3  # targets that are named; the others are counted


def concepts_yaml(sets: Sequence[ConceptSet]) -> str:
    """The concept sets in YAML, one as it is and several as a list, as a run keeps them."""
    return dump_concepts(sets[0] if len(sets) == 1 else sets)


def concepts_hash(sets: Sequence[ConceptSet]) -> str:
    """The SHA-256 of the concept sets in YAML, as "sha256:..."."""
    return f"sha256:{hashlib.sha256(concepts_yaml(sets).encode()).hexdigest()}"


def targets(sets: Sequence[ConceptSet]) -> str:
    """The targets in words."""
    more = [f"{len(sets) - NAMED} more"] if len(sets) > NAMED else []
    return ", ".join([c.target for c in sets[:NAMED]] + more)


def stem(sets: Sequence[ConceptSet]) -> str:
    """The name of a run's files, such as "erase-cat"; safe on every system."""
    return slug(f"erase-{targets(sets)}")


def method_name(config: Mapping[str, Any]) -> str:
    """The method in words: "ESD with CRCE", or "UCE" alone."""
    name = str(config["method"]).upper()
    return f"{name} with CRCE" if config["crce"] else name


def description(sets: Sequence[ConceptSet]) -> str:
    """One sentence on what is erased and kept."""
    corefs, retains = sum(len(c.train_corefs) for c in sets), sum(len(c.train_retains) for c in sets)
    text = f"Erases {targets(sets)}"
    text += f" with {corefs} corefs" if corefs else ""
    return text + (f" and keeps {retains} retains." if retains else ".")


def run_metadata(erasure: Erasure, base: Base) -> dict[str, str]:
    """The metadata of every file of a run, whatever its format."""
    info, config = erasure.info, erasure.info["config"]
    return {
        "format": "pt",
        "crce": __version__,
        "crce_trained_with": str(info.get("crce") or __version__),
        "base_model": base.public_name,
        "base_revision": base.revision or "",
        "concepts": concepts_yaml(erasure.sets),
        "concepts_sha256": concepts_hash(erasure.sets),
        "method": method_name(config),
        "config": json.dumps(config),
    }


def modelspec(erasure: Erasure, base: Base, architecture: Architecture | None, *, to: str) -> dict[str, str]:
    """The keys of the Stability metadata standard; unknown ones are left out.

    Args:
        erasure: the run.
        base: its base model.
        architecture: of the base model, if it is known.
        to: "diffusers", "kohya" or "single-file".
    """
    keys = {
        "sai_model_spec": "1.0.0",
        "title": f"{targets(erasure.sets)} erased ({method_name(erasure.info['config'])})",
        "description": description(erasure.sets),
        "tags": "concept-erasure, crce",
    }
    if erasure.info.get("finished"):
        keys["date"] = erasure.info["finished"][:19]
    if base.prediction_type is not None:
        keys["prediction_type"] = {"v_prediction": "v"}.get(base.prediction_type, base.prediction_type)
    if to == "single-file":
        keys["merged_from"] = base.public_name
    if architecture is not None:
        keys["architecture"] = architecture.name + ("" if to == "single-file" else "/lora")
        keys["implementation"] = "diffusers" if to == "diffusers" else architecture.implementation
        keys["resolution"] = f"{architecture.resolution}x{architecture.resolution}"
    return {f"modelspec.{name}": value for name, value in keys.items()}


def network_metadata(
    erasure: Erasure, base: Base, architecture: Architecture | None, *, rank: int, alpha: float, convolutions: bool
) -> dict[str, str]:
    """The keys by which kohya's trainer describes a LoRA."""
    keys = {
        "network_module": "networks.lora",
        "network_dim": str(rank),
        "network_alpha": f"{alpha:g}",
        "output_name": stem(erasure.sets),
        "sd_model_name": base.public_name,
    }
    if convolutions:
        keys["network_args"] = json.dumps({"conv_dim": str(rank), "conv_alpha": f"{alpha:g}"})
    if not is_solved(erasure.info["config"]["method"]):
        keys["steps"] = str(erasure.info["config"]["steps"])
        keys["learning_rate"] = f"{erasure.info['config']['learning_rate']:g}"
    if architecture is not None:
        keys["base_model_version"] = architecture.kohya
        keys["v2"] = str(architecture.kohya.startswith("sd_v2"))
    return {f"ss_{name}": value for name, value in keys.items()}
