"""What is known of a model before anything large is imported: its path, and the configs of well-known Hub models.

published.json holds the configs of those models, how they are sampled, and what their erasure takes with the settings
of each recipe, so that `crce plan` answers at once and without a network. benchmarks/plan/published.py writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from crce import demo
from crce.concepts.concept_set import text_fault
from crce.errors import ConfigError, ModelError


DTYPES = ("float32", "float16", "bfloat16")
PLANNED = ("layers", "adapter", "rank", "quantize")  # settings that a published plan is found by


def check_dtype(dtype: str) -> None:
    """Refuse what is neither "auto" nor one of `DTYPES`.

    Raises:
        ConfigError: the type is unknown.
    """
    if dtype not in ("auto", *DTYPES):
        raise ConfigError(f"dtype is {dtype!r}. Use auto or one of: {', '.join(DTYPES)}.")


def model_path(model: str, revision: str | None = None) -> Path:
    """The path of a model; none exists there for a Hub id.

    Raises:
        ModelError: the model is a path, and nothing is there, or a revision is given for what has none.
    """
    if fault := text_fault(model):
        raise ModelError(f"The name of the model {fault}")
    path = demo.model_path(model) if model in demo.MODELS else Path(model).expanduser()
    like_a_path = model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model
    if not path.exists() and (like_a_path or model.endswith(".safetensors")):
        raise ModelError(f"There is no model at {path}. Give a Hub id, a folder, a .safetensors file, or demo.")
    if revision is not None and path.exists():
        raise ModelError(f"revision is {revision!r}, but {model!r} is not on the Hub, so it has none. Leave it out.")
    return path


def published(model: str, revision: str | None = None) -> dict[str, Any] | None:
    """The entry of a Hub model in published.json; None for others, for a folder here, and for a named revision."""
    return None if revision or Path(model).exists() else _published().get(model)


def published_json(entry: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """A JSON file of a published model; None where it has none of that name."""
    parts = entry["parts"]
    if name == "model_index.json":
        index = {part: origin for part, (*origin, _) in parts.items()}
        return {"_class_name": entry["pipeline"], **entry.get("index", {}), **index}
    part = parts.get(name.partition("/")[0])
    return {"_class_name": part[1], **part[2]} if part and name.endswith("config.json") else None


def published_plan(entry: Mapping[str, Any], settings: Any) -> dict[str, Any] | None:
    """The memory that an erasure takes, as fields of a `MemoryPlan`; None for settings that no recipe has."""
    if settings.resolution or settings.target_modules or settings.text_tokens_only or settings.drop_t5:
        return None
    wanted = [getattr(settings, name) for name in PLANNED]
    return next((plan for *found, plan in entry["plans"] if found == wanted), None)


@cache
def _published() -> dict[str, Any]:
    table = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return {name: entry for entry in table for name in entry["models"]}
