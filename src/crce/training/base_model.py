"""Loading the model that a finished run erased from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crce.backbones import Backbone, load_backbone
from crce.backbones.text_side import encoders_alone, free_encoders, keep_states
from crce.errors import RunError
from crce.training.run_folder import Erasure


def load_base(
    erasure: Erasure,
    *,
    backbone: Backbone | None = None,
    device: str = "auto",
    dtype: str | None = None,
    quantize: str | None = None,
    prompts: Sequence[str] = (),
    **how: Any,
) -> Backbone:
    """The model that a run erased from, as it was then; `apply_adapter` puts what was trained on it.

    Args:
        erasure: the run.
        backbone: that model, if it is loaded already; it is checked, and returned at the resolution of the run.
        device: see `load_backbone`, as is dtype.
        dtype: None takes that of the training.
        quantize: as in `load_backbone`, whatever the run was trained on; None takes the weights as published.
        prompts: with `offload` of a model that is not small, these are encoded first, and the text encoders freed.
        how: `offload`, with which gradients can't pass a network that was moved away: for inference, and training by
            `erase`; and `parts`.

    Raises:
        ModelError: the model can't be loaded.
        ConfigError: device or dtype can't be used.
        RunError: the model has changed since, or is loaded otherwise.
    """
    if prompts and how.get("offload"):
        how["parts"] = encoders_alone
    backbone = backbone or load_recorded(erasure.info, device=device, dtype=dtype, quantize=quantize, **how)
    if backbone.drop_t5 != erasure.config.drop_t5:
        raise RunError(f"The model was loaded with drop_t5 {backbone.drop_t5}, unlike that of {erasure.folder}.")
    then, now = erasure.info["revision"], backbone.revision
    if then != now:
        raise RunError(
            f"The run {erasure.folder} erased from {erasure.info['model']!r} at {then}, but the model here is at "
            f"{now}. Its adapter belongs to the model as it was: bring that back, or erase again."
        )
    backbone.use_resolution(erasure.config.resolution)
    keep_states(backbone, prompts)
    free_encoders(backbone)
    return backbone


def load_recorded(info: dict[str, Any], *, device: str = "auto", dtype: str | None = None, **how: Any) -> Backbone:
    """The model named in a run.json, without T5 if it was; the caller checks whether it has changed since."""
    how |= {"dtype": dtype or info["dtype"], "drop_t5": info["config"].get("drop_t5", False)}
    return load_backbone(info["model"], device=device, revision=recorded_commit(info), **how)


def recorded_commit(info: dict[str, Any]) -> str | None:
    """The commit of the Hub model named in a run.json; None for other models, which are known by a hash of files."""
    return None if ":" in (info["revision"] or "") else info["revision"]
