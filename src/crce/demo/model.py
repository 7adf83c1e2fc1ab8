"""Assemble the bundled models as folders that their pipelines' `from_pretrained` loads unchanged.

Their weights are part of this package: a denoiser each, and the autoencoder and MiniLM-L6 as the text encoder, which
they share. `FluxPipeline` reads pooled states and token states from two text encoders: both are MiniLM. A folder is
built once in the user's cache.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from crce.errors import ModelError
from crce.files import cache_folder, sha256


_ENCODER = {"text_encoder": ["transformers", "BertModel"], "tokenizer": ["transformers", "BertTokenizerFast"]}
_SHARED = {
    **_ENCODER,
    **dict.fromkeys(("feature_extractor", "image_encoder"), [None, None]),
    "vae": ["diffusers", "AutoencoderTiny"],
    "_diffusers_version": "0.35.0",
}
# by name, the model_index.json of its folder
MODELS: dict[str, dict[str, Any]] = {
    "demo": {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
        **_SHARED,
    },
    "demo-flow": {
        "_class_name": "FluxPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        **{f"{part}_2": origin for part, origin in _ENCODER.items()},
        **_SHARED,
    },
}


def weights_path() -> Path:
    """The folder of the bundled weights."""
    return Path(__file__).parent / "weights"


@cache
def world() -> dict[str, Any]:
    """The styles and concepts that the bundled models can generate, with their names (see world.yaml)."""
    return yaml.safe_load((Path(__file__).parent / "world.yaml").read_text(encoding="utf-8"))


def model_path(model: str = "demo") -> Path:
    """The folder of a bundled pipeline, built in the cache on first use. CRCE_CACHE sets another cache folder.

    `model` is a name in `MODELS`.

    Raises:
        ModelError: the cache can't be written.
    """
    files = _files(model)
    root = cache_folder()
    folder = root / f"{model}-{sha256(*files.values())[:12]}"
    if not (folder / "model_index.json").is_file():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{model}-", dir=root) as temporary:
                partial = Path(temporary) / "model"
                for name, source in files.items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, partial / name)
                (partial / "model_index.json").write_text(json.dumps(MODELS[model], indent=2), encoding="utf-8")
                # Another process may have been faster; its folder is the same.
                if not folder.exists():
                    partial.replace(folder)
        except OSError as error:
            raise ModelError(
                f"Cannot build the bundled model in {root}: {error.strerror or error}. "
                "Free some space, or set CRCE_CACHE to a folder that can be written."
            ) from error
    return folder


def text_encoder_path() -> Path:
    """The folder of MiniLM, the text encoder of the bundled models."""
    return weights_path() / "text_encoder"


def _files(model: str) -> dict[str, Path]:
    """By their path in a model's folder, the files of this package that are copied there."""
    weights = weights_path()
    files: dict[str, Path] = {}
    for part in (part for part, origin in MODELS[model].items() if isinstance(origin, list) and origin[0]):
        own = weights / "flow" if model == "demo-flow" and part != "vae" else weights
        if part.startswith("text_encoder"):
            copied = {name: text_encoder_path() / name for name in ("config.json", "model.safetensors")}
        elif part.startswith("tokenizer"):
            copied = {name: text_encoder_path() / name for name in ("tokenizer.json", "tokenizer_config.json")}
        elif part == "scheduler":
            copied = {"scheduler_config.json": own / "scheduler.json"}
        else:
            tensors = own / f"{part}.safetensors"
            copied = {"config.json": own / f"{part}.json", "diffusion_pytorch_model.safetensors": tensors}
        files |= {f"{part}/{name}": source for name, source in copied.items()}
    return files
