"""Assemble the bundled model as a folder that `StableDiffusionPipeline.from_pretrained` loads unchanged.

Its weights are part of this package: the denoiser, the autoencoder, and MiniLM-L6 as the text encoder. The folder is
built once in the user's cache.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from platformdirs import user_cache_path

from crce.errors import ModelError
from crce.files import sha256


def weights_path() -> Path:
    """The folder of the bundled weights."""
    return Path(__file__).parent / "weights"


@cache
def world() -> dict[str, Any]:
    """The styles and concepts that the bundled model can generate, with their names (see world.yaml)."""
    return yaml.safe_load((Path(__file__).parent / "world.yaml").read_text(encoding="utf-8"))


def model_path() -> Path:
    """The folder of the bundled pipeline, built in the cache on first use. CRCE_CACHE sets another cache folder.

    Raises:
        ModelError: the cache can't be written.
    """
    digest = sha256(*sorted(path for path in weights_path().rglob("*") if path.is_file()))
    root = Path(os.environ.get("CRCE_CACHE") or user_cache_path("crce"))
    folder = root / f"emoji-{digest[:12]}"
    if not (folder / "model_index.json").is_file():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".emoji-", dir=root) as temporary:
                partial = Path(temporary) / "model"
                _assemble(partial)
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
    """The folder of MiniLM, the text encoder of the bundled model."""
    return weights_path() / "text_encoder"


def _assemble(folder: Path) -> None:
    weights, encoder = weights_path(), text_encoder_path()
    for part in ("unet", "vae", "scheduler", "text_encoder", "tokenizer"):
        (folder / part).mkdir(parents=True)
    for part in ("unet", "vae"):
        shutil.copyfile(weights / f"{part}.json", folder / part / "config.json")
        shutil.copyfile(weights / f"{part}.safetensors", folder / part / "diffusion_pytorch_model.safetensors")
    shutil.copyfile(weights / "scheduler.json", folder / "scheduler" / "scheduler_config.json")
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(encoder / name, folder / "text_encoder" / name)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(encoder / name, folder / "tokenizer" / name)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.35.0",
        **dict.fromkeys(("feature_extractor", "image_encoder", "safety_checker"), [None, None]),
        "requires_safety_checker": False,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "BertModel"],
        "tokenizer": ["transformers", "BertTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
