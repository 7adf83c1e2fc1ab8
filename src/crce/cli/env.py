"""`crce env`: versions and hardware for bug reports."""

from __future__ import annotations

import json as json_format
import os
import platform
from importlib import metadata
from typing import Annotated, Any

import typer

from crce import __version__


PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "huggingface_hub", "tokenizers")


def env(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> int:
    """Print versions, device, memory and folders for bug reports."""
    facts = environment()
    if json:
        typer.echo(json_format.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            typer.echo(f"{name:<18} {value}")
    return 0


def environment() -> dict[str, Any]:
    """Versions, hardware and folders; memory in GiB."""
    import psutil
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE
    from platformdirs import user_cache_dir

    gib = 2**30
    facts: dict[str, Any] = {"crce": __version__, "python": platform.python_version(), "system": platform.platform()}
    facts |= {name: _version(name) for name in PACKAGES}
    facts |= {"cpu_cores": psutil.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / gib, 1)}
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        facts |= {
            "device": gpu.name,
            "device_memory_gib": round(gpu.total_memory / gib, 1),
            "cuda": torch.version.cuda,
        }
    else:
        facts["device"] = "mps" if torch.backends.mps.is_available() else "cpu"
    facts |= {"crce_cache": os.environ.get("CRCE_CACHE") or user_cache_dir("crce"), "model_cache": HF_HUB_CACHE}
    return facts


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
