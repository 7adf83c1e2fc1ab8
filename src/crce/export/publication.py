"""Publication of a run: a folder with its LoRA in both formats, concept set, report and card, and its upload."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crce.concepts import write_sets
from crce.errors import ConfigError, RunError, first_line
from crce.export.base import REPOSITORY, describe_base, identify, kohya_prefixes, public_judge
from crce.export.card import write_card
from crce.export.layers import read_adapter
from crce.export.lora import write_lora
from crce.export.metadata import stem
from crce.export.pipeline import base_pipeline
from crce.files import free_folder, write_json
from crce.training import Erasure
from crce.training.run_folder import alone, read_report


log = logging.getLogger(__name__)

LORA = "pytorch_lora_weights.safetensors"  # where diffusers looks
STRIPS = 2  # of each group
TARGETS = 12  # of a run with several targets, those whose images are shown


@dataclass(frozen=True)
class Published:
    """The result of `push`.

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


@alone
def push(
    run: str | Path | Erasure,
    repo: str,
    *,
    out: str | Path | None = None,
    private: bool = False,
    dry_run: bool = False,
    rank: int | None = None,
) -> Published:
    """Write a run into a folder for publication, and upload it to the Hugging Face Hub.

    The token is that of `hf auth login`, or HF_TOKEN. Images of a target of kind "explicit" are not published.

    Args:
        run: a finished run, or its folder.
        repo: "user/name".
        out: the folder, which must not exist yet; None takes the next free push-N in the run folder.
        private: whether a new repository is private.
        dry_run: write the folder and upload nothing.
        rank: the largest rank of a LoRA made of whole weights.

    Raises:
        ConfigError: `repo` is not the name of a repository.
        RunError: the run isn't finished, the folder is taken, or the upload failed.
        ModelError: the base model is needed and can't be loaded.
    """
    if not re.fullmatch(REPOSITORY, repo):
        raise ConfigError(f"{repo!r} is not a repository. Write user/name.")
    erasure = run if isinstance(run, Erasure) else Erasure.load(run)
    folder = Path(out) if out is not None else free_folder(erasure.folder, "push")
    if folder.exists():
        raise RunError(f"{folder} exists already. Choose another --out.")
    notes = _write_folder(folder, erasure, repo, rank)
    files = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
    return Published(folder, files, None if dry_run else upload(folder, repo, private=private), notes)


def upload(folder: Path, repo: str, *, private: bool = False) -> str:
    """Upload a folder to a model repository, created where it doesn't exist, and return its address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # The base of the Hub's errors belongs to its HTTP library, which depends on the version.
    network_error: type[Exception] = HfHubHTTPError.__bases__[0]
    api = HfApi()
    try:
        url = api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Upload with crce")
    except (network_error, OSError, ValueError) as error:
        raise RunError(
            f"Cannot upload to {repo}: {first_line(error)}. The folder {folder} is complete: log in as a user who may "
            "write there (hf auth login, or set HF_TOKEN) and try again, or upload it by hand: "
            f"hf upload {repo} {folder}"
        ) from error
    return str(url)


def _write_folder(folder: Path, erasure: Erasure, repo: str, rank: int | None) -> tuple[str, ...]:
    adapter = read_adapter(erasure.adapter)
    pipe = base_pipeline(erasure, edited_only=True) if adapter.weights else None
    base = describe_base(erasure.info, pipe)
    notes, kohya = write_lora(erasure, folder / LORA, "diffusers", pipe=pipe, rank=rank).notes, None
    if kohya_prefixes(base, identify(base, adapter.shapes())[0], adapter.components):
        kohya = f"{stem(erasure.sets)}-kohya.safetensors"
        write_lora(erasure, folder / kohya, "kohya", pipe=pipe, rank=rank)
    write_sets(folder / "concepts.yaml", erasure.sets)
    report = read_report(erasure.folder)
    images: list[tuple[str, str]] = []
    if report is not None:
        kept = ("target", "targets", "kind", "summary", "verdict", "judge", "settings", "leaks", "broken")
        facts = {name: report[name] for name in kept if name in report}
        if facts["judge"]:
            facts["judge"] = facts["judge"] | {"name": public_judge(facts["judge"]["name"])}
        write_json(folder / "report.json", facts | {"model": base.public_name, "revision": base.revision})
        if any(c.kind == "explicit" for c in erasure.sets):
            notes = (*notes, "images are left out: a target is explicit")
        else:
            images = _copy_images(folder, erasure.folder, report)
    write_card(folder, erasure, base, form="lora", repo=repo, kohya=kohya, images=images)
    return notes


def _copy_images(folder: Path, run: Path, report: dict[str, Any]) -> list[tuple[str, str]]:
    """Copy the first strips of each group, or all of each target, with their prompts; missing ones are skipped."""
    strips: list[tuple[str, Path]] = []
    for entry in report.get("targets", [])[:TARGETS]:  # several: each has a report of its own
        own = run / Path(entry["report"]).parent
        prompts = (read_report(own) or {"groups": {"target": {"prompts": []}}})["groups"]["target"]["prompts"]
        strips += ((p["text"], own / p["image"]) for p in prompts)
    for group in report.get("groups", {}).values():
        strips += ((p["text"], run / p["image"]) for p in group["prompts"][:STRIPS])
    copied: list[tuple[str, str]] = []
    for text, source in strips:
        if not source.is_file():
            log.warning("%s does not exist any more, so the card does not show it.", source)
            continue
        name = f"images/{len(copied):02d}-{source.name}"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
        copied.append((text, name))
    return copied
