"""A run for others: a folder with its LoRA in both forms, its concept set, its report and a card; and its upload."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crce.concepts import write_sets
from crce.errors import ConfigError, RunError
from crce.export.base import Base, describe_base
from crce.export.card import read_report, write_card
from crce.export.layers import read_adapter
from crce.export.lora import make_lora
from crce.export.names import has_kohya_names
from crce.export.pipeline import base_pipeline
from crce.export.provenance import stem
from crce.files import free_folder, write_json, write_tensors
from crce.training import Erasure


if TYPE_CHECKING:
    from crce.export.layers import Adapter

log = logging.getLogger(__name__)

LORA = "pytorch_lora_weights.safetensors"  # where diffusers looks
PICTURES = 2  # strips of each group
TARGETS = 12  # of a run with several targets, those whose pictures are shown


@dataclass(frozen=True)
class Published:
    """What `push` made.

    Attributes:
        folder: the folder that was uploaded, or would be.
        files: its files, by their paths in it.
        url: where it is; None after a dry run.
        notes: what the user should know.
    """

    folder: Path
    files: tuple[str, ...]
    url: str | None
    notes: tuple[str, ...]


def push(
    run: str | Path | Erasure,
    repo: str,
    *,
    out: str | Path | None = None,
    private: bool = False,
    dry_run: bool = False,
    rank: int | None = None,
) -> Published:
    """Write what others need of a run into a folder, and upload it to the Hugging Face Hub.

    The token is that of `hf auth login`, or HF_TOKEN. Pictures of a target of kind "explicit" are not published.

    Args:
        run: a finished run, or its folder.
        repo: "user/name".
        out: the folder, which must not exist yet; None takes the next free push-N in the run folder.
        private: whether a new repository is private.
        dry_run: write the folder and upload nothing.
        rank: of an adapter of whole weights, the most its LoRA may have.

    Raises:
        ConfigError: `repo` is no name of a repository.
        RunError: the run isn't finished, the folder is taken, or the upload failed.
        ModelError: the base model is needed and can't be loaded.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):
        raise ConfigError(f"{repo!r} is no repository. Write user/name.")
    erasure = run if isinstance(run, Erasure) else Erasure.load(run)
    folder = Path(out) if out is not None else free_folder(erasure.folder, "push")
    if folder.exists():
        raise RunError(f"{folder} exists already. Choose another --out.")
    notes = _write_folder(folder, erasure, repo, rank)
    files = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
    return Published(folder, files, None if dry_run else upload(folder, repo, private=private), notes)


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a folder to a model repository, made if it isn't there, and return its address.

    Raises:
        RunError: it failed; says why, and that the folder is whole.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    # The Hub's error is derived from its HTTP library's, and so are those raised when the network is away. Which
    # library that is depends on the version.
    network_error: type[Exception] = HfHubHTTPError.__bases__[0]
    api = HfApi()
    cure = f"The folder {folder} is whole: try again, or upload it by hand: hf upload {repo} {folder}"
    try:
        url = api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Upload with crce")
    except LocalTokenNotFoundError as error:
        raise RunError(
            f"Cannot upload to {repo}: there is no token. Log in: hf auth login, or set HF_TOKEN."
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        reason = _first_line(error)
        if status in (401, 403):
            reason += " Log in as someone who may write there: hf auth login, or set HF_TOKEN."
        raise RunError(f"Cannot upload to {repo}: {reason} {cure}") from error
    except (network_error, OfflineModeIsEnabled, HFValidationError, OSError, ValueError) as error:
        raise RunError(f"Cannot upload to {repo}: {_first_line(error)} {cure}") from error
    return str(url)


def _write_folder(folder: Path, erasure: Erasure, repo: str, rank: int | None) -> tuple[str, ...]:
    adapter, base = read_adapter(erasure.adapter), describe_base(erasure.info)
    pipe = base_pipeline(erasure) if adapter.weights else None
    notes = _write_loras(folder, erasure, adapter, base, pipe, rank)
    write_sets(folder / "concepts.yaml", erasure.sets)
    report = read_report(erasure.folder)
    pictures: list[tuple[str, str]] = []
    if report is not None:
        kept = ("target", "targets", "kind", "summary", "verdict", "judge", "settings", "leaks", "broken")
        facts = {name: report[name] for name in kept if name in report}
        write_json(folder / "report.json", facts | {"model": base.public_name, "revision": base.revision})
        if any(c.kind == "explicit" for c in erasure.sets):
            notes = (*notes, "pictures are left out: a target is explicit")
        else:
            pictures = _copy_pictures(folder, erasure.folder, report)
    kohya = f"{stem(erasure.sets)}-kohya.safetensors" if has_kohya_names(adapter.components) else None
    write_card(folder, erasure, base, form="lora", repo=repo, kohya=kohya, pictures=pictures)
    return notes


def _write_loras(
    folder: Path, erasure: Erasure, adapter: Adapter, base: Base, pipe: Any, rank: int | None
) -> tuple[str, ...]:
    made = make_lora(erasure, adapter, base, "diffusers", pipe=pipe, rank=rank, dtype=torch.float32)
    write_tensors(folder / LORA, made.tensors, made.metadata)
    if has_kohya_names(adapter.components):
        kohya = make_lora(erasure, adapter, base, "kohya", pipe=pipe, rank=rank, dtype=torch.float32)
        write_tensors(folder / f"{stem(erasure.sets)}-kohya.safetensors", kohya.tensors, kohya.metadata)
    return made.notes


def _copy_pictures(folder: Path, run: Path, report: dict[str, Any]) -> list[tuple[str, str]]:
    """Copy a few strips of each group, or that of each target; strips that are gone are passed over."""
    copied: list[tuple[str, str]] = []
    for text, source in _pictures(run, report):
        if not source.is_file():
            log.warning("%s is not there any more, so it is not in the card.", source)
            continue
        name = f"images/{len(copied):02d}-{source.name}"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
        copied.append((text, name))
    return copied


def _pictures(run: Path, report: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Prompts with their strips of before and after."""
    if "targets" in report:  # several: each has a report of its own
        for entry in report["targets"][:TARGETS]:
            folder = run / Path(entry["report"]).parent
            own = read_report(folder)
            if own is not None:
                yield from ((p["text"], folder / p["image"]) for p in own["groups"]["target"]["prompts"])
        return
    for group in report["groups"].values():
        yield from ((p["text"], run / p["image"]) for p in group["prompts"][:PICTURES])


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
