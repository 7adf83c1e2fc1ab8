"""The table of export formats, and `export`, which writes a run in one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crce.backbones.sources import DTYPES
from crce.errors import ConfigError, RunError
from crce.files import check_writable, locked
from crce.registry import Table


if TYPE_CHECKING:
    from crce.training import Erasure

TOLERANCE = 1e-3  # relative error of a layer whose change is written in low rank


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        path: the file or folder.
        format: a name in `FORMATS`.
        rank: of a LoRA.
        error: the largest relative error of a layer; 0 unless whole weights became a LoRA.
        notes: what the user should know.
    """

    path: Path
    format: str
    rank: int | None = None
    error: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportFormat:
    """An entry of `FORMATS`: a format that other programs read.

    Attributes:
        summary: the format in a few words, for the command line.
        write: writes a finished run to a path that is free, by the arguments `erasure` and `path`, and `rank`
            and `dtype` as in `export`; or its "module:attribute".
        low_rank: whether it is a LoRA, so that `rank` applies.
        suffix: of its file; empty for a pipeline folder.
    """

    summary: str
    write: Callable[..., Exported] | str
    low_rank: bool = False
    suffix: str = ".safetensors"


BUNDLED = {
    "diffusers": ExportFormat("a LoRA for load_lora_weights", "crce.export.lora:write_diffusers", low_rank=True),
    "kohya": ExportFormat("a LoRA for ComfyUI, AUTOMATIC1111, Forge", "crce.export.lora:write_kohya", low_rank=True),
    "merged": ExportFormat("a pipeline folder", "crce.export.pipeline:write_merged", suffix=""),
    "single-file": ExportFormat("one checkpoint of all parts", "crce.export.ldm_checkpoint:write_single_file"),
}
# Another package registers an `ExportFormat` as an entry point of the group, under the format's name.
FORMATS: Table[ExportFormat] = Table("export format", "crce.export_formats", BUNDLED)


def export(
    run: str | Path | Erasure,
    to: str,
    *,
    out: str | Path | None = None,
    rank: int | None = None,
    dtype: str | None = None,
    force: bool = False,
) -> Exported:
    """Write a run in a format that other programs load.

    Args:
        run: a finished run, or its folder.
        to: a name in `FORMATS`, such as "diffusers", "kohya", "merged" or "single-file".
        out: the file or folder; None takes export/erase-<targets>-<format> in the run folder.
        rank: the largest rank of a LoRA made of whole weights; None takes what loses at most
            `crce.export.layers.TOLERANCE` of a layer.
        dtype: "float32", "float16" or "bfloat16"; None takes float32 for a LoRA, else the type of the training.
        force: overwrite an existing file or pipeline folder.

    Raises:
        ConfigError: the format or the type is unknown, or a rank is given for a format that has none.
        RunError: the run isn't finished, changed nothing, doesn't fit its model any more, or `out` is taken.
        ModelError: the base model is needed and can't be loaded, or the format can't hold it.

    Examples:
        >>> import crce
        >>> lora = crce.export("runs/cat", to="kohya", rank=4)
        >>> lora.path.as_posix()
        'runs/cat/export/erase-cat-kohya.safetensors'
    """
    from crce.export.metadata import stem
    from crce.training import Erasure

    chosen = FORMATS.find(to)
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}. Use one of: {', '.join(DTYPES)}.")
    if rank is not None and (not chosen.low_rank or rank < 1):
        with_rank = " and ".join(name for name, known in FORMATS.items() if known.low_rank)
        raise ConfigError(f"rank is {rank} with --to {to}. A rank of 1 or more goes with {with_rank}.")
    erasure = run if isinstance(run, Erasure) else Erasure.load(run)
    path = Path(out) if out is not None else erasure.folder / "export" / f"{stem(erasure.sets)}-{to}{chosen.suffix}"
    _check_free(path, to, chosen, force)
    check_writable(path, folder=not chosen.suffix)
    write = FORMATS.resolve(to, chosen.write)
    with locked(erasure.folder):
        return write(erasure, path, rank=rank, dtype=dtype)


def _check_free(path: Path, to: str, chosen: ExportFormat, force: bool) -> None:
    if not chosen.suffix:
        # only what is clearly a pipeline is ever replaced
        if path.exists() and not (force and (path / "model_index.json").is_file()):
            raise RunError(f"{path} exists already. Choose another --out, or use --force on a pipeline folder.")
        return
    if path.suffix != chosen.suffix:
        raise RunError(f"{path} is not a name for a {to} file. It must end in {chosen.suffix}.")
    if path.is_dir() or (path.exists() and not force):
        raise RunError(f"{path} exists already. Choose another --out, or use --force to overwrite it.")
