"""`crce export`, `check`, `info` and `push`: runs as files for other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.evaluate import print_next
from crce.cli.flags import JSONFlag
from crce.cli.terminal import Bar, error_line, print_facts, print_json, refuse_unused
from crce.export.formats import BUNDLED
from crce.files import check_writable


if TYPE_CHECKING:
    from crce.export import Inspection

FORMATS_HELP = " ".join(f"{name}: {known.summary}." for name, known in BUNDLED.items())


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    to: Annotated[
        str, typer.Option("--to", metavar="|".join(BUNDLED), help=f"{FORMATS_HELP} Other packages may add formats.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file or folder.", show_default="RUN/export/erase-CONCEPT-FORMAT")
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Largest rank of a LoRA made of whole weights.",
            show_default="the smallest with a relative error of 0.001",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, float16, bfloat16.", show_default="float32 for a LoRA, else as in training"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file or pipeline folder.")] = False,
) -> int:
    """Write a run in a format that other programs load."""
    with Bar(f"exporting to {to}"):
        from crce.export import export as export_run

        done = export_run(run, to, out=out, rank=rank, dtype=dtype, force=force)
    _print_notes("note", done.notes)
    typer.echo(done.path)
    return 0


def combine(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Finished runs of one base model.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the new run.", show_default="runs/CONCEPTS-N")] = None,
) -> int:
    """Make one run out of several: a LoRA that is the sum of theirs, without training."""
    check_writable(out or Path("runs"), folder=True)
    with Bar("combining"):
        from crce.training.combine import combine as combine_runs

        done = combine_runs(runs, out)
    typer.echo(f"weights  {done.adapter}")
    print_next(done.folder, [concepts.target for concepts in done.sets])
    return 0


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE|RUN", help="A LoRA, an adapter, a checkpoint, or a run.")],
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Compare what the file changes with what this run trained.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="Relative error of a layer that passes.")] = 2e-3,
    json: JSONFlag = False,
) -> int:
    """Inspect a file or a run: its kind, the programs that load it, and its faults. Exit code 2 if it has any."""
    if against is None:
        refuse_unused(check, locals(), ("tolerance",), "nothing is compared without --against")
    with Bar("checking"):
        from crce.export import check as check_file

        found = check_file(file, against=against, tolerance=tolerance)
    if json:
        value = dataclasses.asdict(found) | {"path": str(found.path)}
        for name in ("ranks", "alphas", "scales"):
            value[name] = {f"{key:g}": count for key, count in value[name].items()}
        if found.comparison is not None:
            value["comparison"] |= {"passed": found.comparison.passed}
        print_json(value, ascii_only=False)
    else:
        _print_inspection(found)
    return 2 if found.faults else 0


def info(
    path: Annotated[Path, typer.Argument(metavar="FILE|RUN", help="An exported or trained file, or a run folder.")],
    json: JSONFlag = False,
) -> int:
    """Print the metadata of a file or a run: concept set, base model, method, settings."""
    with Bar("reading"):
        from crce.export import read_metadata

    metadata = read_metadata(path)
    return print_json(metadata, ascii_only=False) if json else _print_metadata(metadata)


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="The model repository on the Hugging Face Hub.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder without uploading it.")] = False,
    out: Annotated[Path | None, typer.Option(help="The folder.", show_default="RUN/push-N, the next free N")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    rank: Annotated[int | None, typer.Option(min=1, help="Largest rank of a LoRA made of whole weights.")] = None,
) -> int:
    """Write a folder with the LoRA, the concept set and a model card, and upload it to the Hub."""
    check_writable(out or run, folder=True)
    with Bar("writing the folder" if dry_run else "writing and uploading the folder"):
        from crce.export import push as push_run

        done = push_run(run, repo, out=out, private=private, dry_run=dry_run, rank=rank)
    _print_notes("note", done.notes)
    for name in done.files:
        typer.echo(done.folder / name)
    if done.url is not None:
        typer.echo(done.url)
    return 0


def _print_notes(kind: str, notes: Iterable[str]) -> None:
    for note in notes:
        typer.echo(f"{kind}: {note}", err=True)


def _print_inspection(found: Inspection) -> None:
    facts: dict[str, Any] = {
        "kind": found.kind,
        "loads in": ", ".join(found.readers) or ("no program known to crce" if found.dtypes else ""),
        "parts": ", ".join(found.components),
        "modules": found.modules or "",
    }
    for name in ("rank", "alpha", "scale", "dtype"):
        facts[name] = _counts(getattr(found, f"{name}s"))
    if found.comparison is not None and found.comparison.errors:
        name, error = found.comparison.worst
        state = "the same as" if found.comparison.passed else "NOT the same as"
        facts["change"] = f"{state} the run's; largest relative error {error:.2g}, in {name}"
    print_facts(facts, 10)
    _print_notes("warning", found.warnings)
    for fault in found.faults:
        error_line(f"{found.path}: {fault}")


def _counts(counts: dict[Any, int]) -> str:
    """ "16", or "16 (30), 8 (2)" where not all are the same."""
    shown = {f"{value:g}" if isinstance(value, float) else str(value): count for value, count in counts.items()}
    return ", ".join(f"{value} ({count})" if len(shown) > 1 else value for value, count in shown.items())


def _print_metadata(facts: dict[str, Any]) -> int:
    from crce.export.metadata import changed_settings

    keys = ("kind", "base_model", "base_revision", "method", "crce", "concepts_sha256")
    names = ("kind", "base model", "revision", "method", "crce", "concepts")
    lines = {name: facts[key] for name, key in zip(names, keys, strict=True)}
    sets = facts["concepts"] or []
    for number, concepts in enumerate(sets, 1):
        which = f" {number}" if len(sets) > 1 else ""
        lines[f"target{which}"] = f"{concepts['target']} ({concepts['kind']})"
        for side in ("corefs", "retains"):
            phrases = (r["text"] + (" (held out)" if r.get("held_out") else "") for r in concepts[side])
            lines[f"{side}{which}"] = ", ".join(phrases)
    if facts["settings"]:
        lines["settings"] = ", ".join(f"{k} {v}" for k, v in changed_settings(facts["settings"]).items())
    for name, value in facts["metadata"].items():
        lines[name] = text if len(text := str(value)) <= 200 else f"{text[:200]}..."
    return print_facts(lines, 12)
