"""Reading the metadata of a run, an exported folder or a file, without loading a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crce.concepts import ConceptSet
from crce.concepts.documents import parse_sets
from crce.config import all_settings
from crce.errors import ConceptError, RunError
from crce.export.provenance import concepts_hash, method_name
from crce.files import read_header


METADATA_FILE = "crce.json"  # in a merged pipeline folder
RUN_KEYS = ("started", "finished", "device", "dtype", "versions")  # of run.json
OWN_KEYS = ("crce", "base_model", "base_revision", "concepts", "concepts_sha256", "method", "config")


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The provenance of a run folder, a merged pipeline folder or a .safetensors file.

    Returns:
        "path", "kind", "crce", "base_model", "base_revision", "method", "settings", "concepts" (of each set its
        target, kind, corefs and retains), "concepts_sha256", and "metadata": all other metadata of the file. Unknown
        values are None.

    Raises:
        RunError: there is nothing to read, or it is damaged.
    """
    path = Path(path)
    if path.is_dir() and (path / "run.json").is_file():
        return _of_run(path)
    file = path / METADATA_FILE if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise RunError(
            f"{path} holds neither run.json nor {METADATA_FILE}. Give a run, a file, or an exported folder."
        )
    try:
        metadata = json.loads(file.read_text(encoding="utf-8")) if path.is_dir() else read_header(file)
    except (OSError, ValueError) as error:
        raise RunError(
            f"Cannot read {file}: {error}. Give a .safetensors file, a run, or an exported folder."
        ) from error
    trained = f"adapter ({metadata['adapter']})" if "adapter" in metadata else "file"
    return _of_metadata(path, "merged pipeline" if path.is_dir() else metadata.get("export", trained), metadata)


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
        "metadata": {name: info[name] for name in RUN_KEYS if name in info},
    }


def _of_metadata(path: Path, kind: str, metadata: dict[str, str]) -> dict[str, Any]:
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
        "metadata": {name: value for name, value in sorted(metadata.items()) if name not in OWN_KEYS},
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
