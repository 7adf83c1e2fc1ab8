"""Assemble the bundled models as folders that their pipelines' `from_pretrained` loads unchanged.

Their weights are part of this package: a denoiser each, and the autoencoder and MiniLM-L6 as the text encoder, which
they share. `FluxPipeline` reads pooled states and token states from two text encoders: both are MiniLM. A folder is
built once in the user's cache.
"""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from crce.errors import ModelError
from crce.files import cache_folder, sha256


MODELS = ("demo", "demo-flow")
INDEX = "model_index.json"


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
    if not (folder / INDEX).is_file():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{model}-", dir=root) as temporary:
                partial = Path(temporary) / "model"
                for name, source in files.items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, partial / name)
                shutil.copyfile(_own(model) / INDEX, partial / INDEX)
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


def _own(model: str) -> Path:
    """The folder of the weights that a model does not share."""
    return weights_path() / "flow" if model == "demo-flow" else weights_path()


def _files(model: str) -> dict[str, Path]:
    """By their path in a model's folder, the files of this package that are copied there."""
    files: dict[str, Path] = {}
    index = json.loads((_own(model) / INDEX).read_text(encoding="utf-8"))
    for part in (part for part, origin in index.items() if isinstance(origin, list) and origin[0]):
        own = weights_path() if part == "vae" else _own(model)
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
