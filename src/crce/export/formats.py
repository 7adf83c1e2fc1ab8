"""The forms a run is written in, and where they go."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from crce.concepts import write_sets
from crce.errors import ConfigError, RunError
from crce.export.base import describe_base, family_of
from crce.export.card import write_card
from crce.export.layers import TOLERANCE, read_adapter
from crce.export.ldm_checkpoint import original_state
from crce.export.lora import make_lora
from crce.export.metadata import FACTS
from crce.export.pipeline import base_pipeline, merge
from crce.export.provenance import modelspec, run_metadata, stem
from crce.files import write_json, write_tensors
from crce.training import Erasure


if TYPE_CHECKING:
    from crce.export.base import Base
    from crce.export.layers import Adapter

FORMS: dict[str, str] = {
    "diffusers": "a LoRA for pipe.load_lora_weights",
    "kohya": "a LoRA for ComfyUI, AUTOMATIC1111 and Forge",
    "merged": "a pipeline folder with the erasure in its weights",
    "single-file": "one checkpoint in the original layout, with text encoders and autoencoder",
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: the file or folder.
        form: one of `FORMS`.
        rank: of a LoRA.
        error: the largest relative error of a layer; 0 unless whole weights became a LoRA.
        notes: what the user should know.
    """

    path: Path
    form: str
    rank: int | None = None
    error: float = 0.0
    notes: tuple[str, ...] = ()


def export(
    run: str | Path | Erasure,
    to: str,
    *,
    out: str | Path | None = None,
    rank: int | None = None,
    tolerance: float = TOLERANCE,
    dtype: str | None = None,
    force: bool = False,
) -> Exported:
    """Write a run in a form that other programs load.

    Args:
        run: a finished run, or its folder.
        to: "diffusers", "kohya", "merged" or "single-file".
        out: the file or folder; None takes export/erase-<targets>-<form> in the run folder.
        rank: of a LoRA made of whole weights, the most it may have; None takes what the tolerance needs.
        tolerance: of such a LoRA, the relative error that a layer may have.
        dtype: "float32", "float16" or "bfloat16"; None takes float32 for a LoRA, else the type of the training.
        force: write over what is there.

    Raises:
        ConfigError: the form or the type is unknown, or a rank is given for a form that has none.
        RunError: the run isn't finished, changed nothing, doesn't fit its model any more, or `out` is taken.
        ModelError: the base model is needed and can't be loaded, or the form can't hold it.

    Examples:
        >>> import crce
        >>> lora = crce.export("runs/cat", to="kohya", rank=4)
        >>> lora.path.as_posix()
        'runs/cat/export/erase-cat-kohya.safetensors'
    """
    if to not in FORMS:
        raise ConfigError(f"There is no form {to!r}. Use one of: {', '.join(FORMS)}.")
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}. Use one of: {', '.join(DTYPES)}.")
    is_lora = to in ("diffusers", "kohya")
    if rank is not None and (not is_lora or rank < 1):
        raise ConfigError(f"rank is {rank} with --to {to}. A rank of 1 or more goes with diffusers and kohya.")
    erasure = run if isinstance(run, Erasure) else Erasure.load(run)
    path = Path(out) if out is not None else default_path(erasure, to)
    _check_free(path, to, force)
    adapter, base = read_adapter(erasure.adapter), describe_base(erasure.info)
    # a LoRA that was trained as one is written without its base model
    pipe = base_pipeline(erasure, None if is_lora else dtype) if adapter.weights or not is_lora else None
    if is_lora:
        made = make_lora(
            erasure,
            adapter,
            base,
            to,  # type: ignore[arg-type]  # mypy does not narrow by `in`
            pipe=pipe,
            rank=rank,
            tolerance=tolerance,
            dtype=DTYPES[dtype or "float32"],
        )
        write_tensors(path, made.tensors, made.metadata)
        return Exported(path, to, made.rank, made.error, made.notes)
    merge(pipe, adapter)
    if to == "merged":
        _write_pipeline(path, erasure, base, pipe)
        return Exported(path, to, notes=("it has no safety checker: crce loads models without one",))
    write_tensors(path, original_state(pipe), checkpoint_metadata(erasure, base, adapter))
    return Exported(path, to, notes=_checkpoint_notes(pipe))


def default_path(erasure: Erasure, to: str) -> Path:
    """Where a form goes unless another place is named."""
    name = f"{stem(erasure.sets)}-{to}"
    return erasure.folder / "export" / (name if to == "merged" else f"{name}.safetensors")


def checkpoint_metadata(erasure: Erasure, base: Base, adapter: Adapter) -> dict[str, str]:
    """The metadata of a single-file checkpoint."""
    shapes = {name: factors.delta().shape for name, factors in adapter.layers.items()}
    shapes |= {name.removesuffix(".weight"): w.shape for name, w in adapter.weights.items() if w.ndim > 1}
    family = family_of(base, shapes)
    return (
        run_metadata(erasure, base) | modelspec(erasure, base, family, form="single-file") | {"export": "single-file"}
    )


def _check_free(path: Path, to: str, force: bool) -> None:
    if to == "merged":
        # only what is clearly a pipeline is ever replaced
        if path.exists() and not (force and (path / "model_index.json").is_file()):
            raise RunError(f"{path} exists already. Choose another --out, or use --force on a pipeline folder.")
        return
    if path.suffix != ".safetensors":
        raise RunError(f"{path} is no name for a {to} file. End it in .safetensors.")
    if path.is_dir() or (path.exists() and not force):
        raise RunError(f"{path} exists already. Choose another --out, or use --force to write over it.")


def _write_pipeline(folder: Path, erasure: Erasure, base: Base, pipe: Any) -> None:
    """Save the pipeline beside its place, then move it there: a folder is whole or isn't there."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        pipe.save_pretrained(partial, safe_serialization=True)
        write_json(partial / FACTS, run_metadata(erasure, base) | {"export": "merged"})
        write_sets(partial / "concepts.yaml", erasure.sets)
        write_card(partial, erasure, base, form="merged")
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot write {folder}: {error}. Free some space, or choose another --out.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _checkpoint_notes(pipe: Any) -> tuple[str, ...]:
    if pipe.scheduler.config.get("prediction_type") != "v_prediction" or hasattr(pipe, "text_encoder_2"):
        return ()
    return (
        "the model predicts v: AUTOMATIC1111 needs its v2-inference-v.yaml under the file's name beside it, diffusers "
        "prediction_type='v_prediction' or config=<folder of the base model>",
    )
