"""Loading the model that a finished run erased from."""

from __future__ import annotations

from typing import Any

from crce.backbones import Backbone, load_backbone
from crce.errors import RunError
from crce.training.run_folder import Erasure


def load_base(
    erasure: Erasure,
    *,
    backbone: Backbone | None = None,
    device: str = "auto",
    dtype: str | None = None,
    **how: Any,
) -> Backbone:
    """The model that a run erased from, as it was then; `apply_adapter` puts what was trained on it.

    Args:
        erasure: the run.
        backbone: that model, if it is loaded already; it is checked, and returned at the resolution of the run.
        device: see `load_backbone`, as is dtype.
        dtype: None takes that of the training.
        how: `offload`, with which gradients can't pass a network that was moved away: for inference, and training by
            `erase`; and `parts`.

    Raises:
        ModelError: the model can't be loaded.
        ConfigError: device or dtype can't be used.
        RunError: the model has changed since.
    """
    backbone = backbone or load_recorded(erasure.info, device=device, dtype=dtype, **how)
    then, now = erasure.info["revision"], backbone.revision
    if then != now:
        raise RunError(
            f"The run {erasure.folder} erased from {erasure.info['model']!r} at {then}, but the model here is at "
            f"{now}. Its adapter belongs to the model as it was: bring that back, or erase again."
        )
    backbone.use_resolution(erasure.config.resolution)
    return backbone


def load_recorded(info: dict[str, Any], *, device: str = "auto", dtype: str | None = None, **how: Any) -> Backbone:
    """The model named in a run.json; the caller checks whether it has changed since."""
    dtype = dtype or info["dtype"]
    return load_backbone(info["model"], device=device, dtype=dtype, revision=recorded_commit(info), **how)


def recorded_commit(info: dict[str, Any]) -> str | None:
    """The commit of the Hub model named in a run.json; None for other models, which are known by a hash of files."""
    return None if ":" in (info["revision"] or "") else info["revision"]
