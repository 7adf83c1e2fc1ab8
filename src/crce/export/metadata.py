"""The metadata of exported files: concept set, base model, method and settings; written, and read without a model.

The keys of crce's own adapters stay (`crce`, `base_model`, `base_revision`, `concepts`, `config`). Added are those of
the Stability metadata standard (`modelspec.*`) and those that kohya's trainer writes (`ss_*`), from which
AUTOMATIC1111 knows the models that a LoRA is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce import __version__
from crce.concepts import ConceptSet, dump_concepts
from crce.concepts.concept_set import target_names
from crce.concepts.documents import dump_json, parse_sets
from crce.config import all_settings
from crce.errors import ConceptError, RunError
from crce.files import read_header, read_json, slug, text_hash
from crce.methods.table import is_solved


if TYPE_CHECKING:
    from crce.backbones.family_entries import Architecture
    from crce.export.base import Base
    from crce.training import Erasure

METADATA_FILE = "crce.json"  # in a merged pipeline folder
RUN_KEYS = ("started", "finished", "device", "dtype", "versions")  # of run.json
OWN_KEYS = ("crce", "base_model", "base_revision", "concepts", "concepts_sha256", "method", "config")


def concepts_hash(sets: Sequence[ConceptSet]) -> str:
    """The SHA-256 of the concept sets in YAML, as "sha256:..."."""
    return f"sha256:{text_hash(dump_concepts(sets))}"


def stem(sets: Sequence[ConceptSet]) -> str:
    """The name of a run's files, such as "erase-cat"; safe on every system."""
    return slug(f"erase-{target_names(sets)}")


def method_name(config: Mapping[str, Any]) -> str:
    """The method in words: "ESD with CRCE", or "UCE" alone."""
    name = str(config["method"]).upper()
    return f"{name} with CRCE" if config["crce"] else name


def run_metadata(erasure: Erasure, base: Base) -> dict[str, str]:
    """The metadata of every file of a run, whatever its format."""
    info, config = erasure.info, erasure.info["config"]
    return {
        "format": "pt",
        "crce": __version__,
        "crce_trained_with": str(info.get("crce") or __version__),
        "base_model": base.public_name,
        "base_revision": base.revision or "",
        "concepts": dump_concepts(erasure.sets),
        "concepts_sha256": concepts_hash(erasure.sets),
        "method": method_name(config),
        "config": json.dumps(config),
    }


def modelspec(erasure: Erasure, base: Base, architecture: Architecture | None, *, to: str) -> dict[str, str]:
    """The keys of the Stability metadata standard, for the format `to`; unknown ones are left out."""
    single, predicted, sets = to == "single-file", base.prediction_type, erasure.sets
    corefs, retains = sum(len(c.train_corefs) for c in sets), sum(len(c.train_retains) for c in sets)
    erased, kept = f" with {corefs} corefs" if corefs else "", f" and keeps {retains} retains" if retains else ""
    keys = {
        "sai_model_spec": "1.0.0",
        "title": f"{target_names(sets)} erased ({method_name(erasure.info['config'])})",
        "description": f"Erases {target_names(sets)}{erased}{kept}.",
        "tags": "concept-erasure, crce",
        "date": (erasure.info.get("finished") or "")[:19],
        "prediction_type": "v" if predicted == "v_prediction" else predicted,
        "merged_from": base.public_name if single else None,
    }
    if architecture is not None:
        keys["architecture"] = architecture.name + ("" if single else "/lora")
        keys["implementation"] = "diffusers" if to == "diffusers" else architecture.implementation
        keys["resolution"] = f"{architecture.resolution}x{architecture.resolution}"
    return {f"modelspec.{name}": value for name, value in keys.items() if value}


def network_metadata(
    erasure: Erasure, base: Base, architecture: Architecture | None, *, rank: int, alpha: float, convolutions: bool
) -> dict[str, str]:
    """The keys by which kohya's trainer describes a LoRA."""
    config = erasure.info["config"]
    keys = {
        "network_module": "networks.lora",
        "network_dim": str(rank),
        "network_alpha": f"{alpha:g}",
        "output_name": stem(erasure.sets),
        "sd_model_name": base.public_name,
    }
    if convolutions:
        keys["network_args"] = json.dumps({"conv_dim": str(rank), "conv_alpha": f"{alpha:g}"})
    if not is_solved(config["method"]):
        keys |= {"steps": str(config["steps"]), "learning_rate": f"{config['learning_rate']:g}"}
    if architecture is not None:
        keys |= {"base_model_version": architecture.kohya, "v2": str(architecture.kohya.startswith("sd_v2"))}
    return {f"ss_{name}": value for name, value in keys.items()}


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The provenance of a run folder, a merged pipeline folder or a .safetensors file.

    Returns:
        "path", "kind", "crce", "base_model", "base_revision", "method", "settings", "concepts" (of each set its
        target, kind, corefs and retains), "concepts_sha256", and all other "metadata". Unknown values are None.

    Raises:
        RunError: there is nothing to read, or it is damaged.
    """
    path = Path(path)
    if (path / "run.json").is_file():
        from crce.training.run_folder import read_run

        info, run_sets, config = read_run(path)
        given = {"crce": info.get("crce"), "base_model": info["model"], "base_revision": info["revision"]}
        given["settings"] = config.model_dump(mode="json")
        given["method"] = method_name(given["settings"])
        given["metadata"] = {name: info[name] for name in RUN_KEYS if name in info}
        return _provenance(path, f"run ({info['status']})", given, run_sets)
    is_folder = path.is_dir()
    file = path / METADATA_FILE if is_folder else path
    if is_folder and not file.is_file():
        raise RunError(
            f"{path} holds neither run.json nor {METADATA_FILE}. Give a run, a file, or an exported folder."
        )
    cure = "Give a .safetensors file, a run, or an exported folder."
    try:
        metadata = read_json(file, dict[str, str], cure) if is_folder else read_header(file)
        sets = parse_sets(metadata["concepts"], str(path)) if "concepts" in metadata else []
    except OSError as error:
        raise RunError(f"Cannot read {file}: {error}. {cure}") from error
    except ConceptError as error:
        raise RunError(f"The metadata of {path} is damaged: {error}") from error
    text = metadata.get("config", "null")
    settings = read_json(f"config in the damaged metadata of {path}", dict[str, Any] | None, cure, text=text)
    trained = f"adapter ({metadata['adapter']})" if "adapter" in metadata else "file"
    kind = "merged pipeline" if is_folder else metadata.get("export", trained)
    named = {"method": method_name(settings)} if settings and {"method", "crce"} <= settings.keys() else {}
    others = {name: value for name, value in sorted(metadata.items()) if name not in OWN_KEYS}
    return _provenance(path, kind, named | metadata | {"settings": settings, "metadata": others}, sets)


def _provenance(path: Path, kind: str, given: Mapping[str, Any], sets: Sequence[ConceptSet]) -> dict[str, Any]:
    return {
        "path": str(path),
        "kind": kind,
        **{name: given.get(name) or None for name in ("crce", "base_model", "base_revision", "method")},
        "settings": given["settings"],
        "concepts": [json.loads(dump_json(concepts)) for concepts in sets] or None,
        "concepts_sha256": concepts_hash(sets) if sets else None,
        "metadata": given["metadata"],
    }


def changed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from the defaults."""
    known = all_settings()
    return {k: v for k, v in settings.items() if k not in known or v != known[k].field.default}
