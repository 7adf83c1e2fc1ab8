"""What a file or a run says of itself, without loading a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crce.concepts import ConceptSet
from crce.concepts.documents import parse_sets
from crce.config import all_settings
from crce.errors import ConceptError, RunError
from crce.export.provenance import concepts_hash, method_name


FACTS = "crce.json"  # beside a merged pipeline
RUN_FACTS = ("started", "finished", "device", "dtype", "versions")  # of run.json


def read_facts(path: str | Path) -> dict[str, Any]:
    """The provenance of a run folder, a merged pipeline folder or a .safetensors file.

    Returns:
        "path", "kind", "crce", "base_model", "base_revision", "method", "settings", "concepts" (of each set its
        target, kind, corefs and retains), "concepts_sha256", and "metadata": whatever else the file holds. What isn't
        known is None.

    Raises:
        RunError: there is nothing to read, or it says nothing of an erasure.
    """
    path = Path(path)
    if path.is_dir() and (path / "run.json").is_file():
        return _of_run(path)
    if path.is_dir():
        if not (path / FACTS).is_file():
            raise RunError(f"{path} holds neither run.json nor {FACTS}. Give a run, a file, or an exported folder.")
        try:
            metadata = json.loads((path / FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"Cannot read {path / FACTS}: {error}") from error
        return _of_metadata(path, "merged pipeline", metadata)
    metadata = read_metadata(path)
    kind = metadata.get("export") or (f"adapter ({metadata['adapter']})" if "adapter" in metadata else "file")
    return _of_metadata(path, kind, metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; its tensors are not read.

    Raises:
        RunError: it can't be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as f:
            return f.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot read {path}: {error}. Give a .safetensors file or a run.") from error


def _of_run(folder: Path) -> dict[str, Any]:
    from crce.training.run_folder import read_run

    info, sets, config = read_run(folder)
    return {
        "path": str(folder),
        "kind": f"run ({info['status']})",
        "crce": info.get("crce"),
        "base_model": info["model"],
        "base_revision": info["revision"],
        "method": method_name(config.model_dump(mode="json")),
        "settings": config.model_dump(mode="json"),
        "concepts": [_plain(concepts) for concepts in sets],
        "concepts_sha256": concepts_hash(sets),
        "metadata": {name: info[name] for name in RUN_FACTS if name in info},
    }


def _of_metadata(path: Path, kind: str, metadata: dict[str, str]) -> dict[str, Any]:
    own = ("crce", "base_model", "base_revision", "concepts", "concepts_sha256", "method", "config")
    sets: list[ConceptSet] = []
    settings = None
    try:
        if "concepts" in metadata:
            sets = parse_sets(metadata["concepts"], str(path))
        if "config" in metadata:
            settings = json.loads(metadata["config"])
    except (ConceptError, ValueError) as error:
        raise RunError(f"The metadata of {path} is damaged: {error}") from error
    method = metadata.get("method")
    if method is None and settings and {"method", "crce"} <= settings.keys():
        method = method_name(settings)
    return {
        "path": str(path),
        "kind": kind,
        "crce": metadata.get("crce"),
        "base_model": metadata.get("base_model"),
        "base_revision": metadata.get("base_revision") or None,
        "method": method,
        "settings": settings,
        "concepts": [_plain(concepts) for concepts in sets] or None,
        "concepts_sha256": concepts_hash(sets) if sets else None,
        "metadata": {name: value for name, value in sorted(metadata.items()) if name not in own},
    }


def changed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from the defaults."""
    known = all_settings()
    return {k: v for k, v in settings.items() if k not in known or v != known[k].field.default}


def _plain(concepts: ConceptSet) -> dict[str, Any]:
    sides = {
        name: [
            {"text": r.text, "certainty": r.certainty} | ({"held_out": True} if r.held_out else {})
            for r in getattr(concepts, name)
        ]
        for name in ("corefs", "retains")
    }
    return {"target": concepts.target, "kind": concepts.kind, **sides}
