"""`crce ls`, `show`, `methods` and `env`: what there is, and the facts for bug reports."""

import os
import platform
from contextlib import suppress
from importlib import metadata
from typing import Annotated, Any, get_args

import typer

from crce import __version__
from crce.cli.flags import JSONFlag
from crce.cli.terminal import Bar, print_facts, print_json, print_table
from crce.concepts import KINDS, Related, atlas, certainty_word, dump_concepts, find_concepts
from crce.errors import ConceptError
from crce.files import cache_folder


PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "huggingface_hub", "tokenizers")


def ls(
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="|".join(KINDS), help="Only the concepts of this kind.")
    ] = None,
) -> int:
    """List the concepts of the atlas, and the recipes."""
    if kind not in (None, *KINDS):
        raise ConceptError(f"Unknown kind {kind!r}. Use one of: {', '.join(KINDS)}.")
    from crce.config import recipe_names

    sets = sorted(atlas().values(), key=lambda c: c.target.lower())
    counts = ("corefs", "held out", "retains", "held out")
    for group in KINDS if kind is None else (kind,):
        lists = ("train_corefs", "held_out_corefs", "train_retains", "held_out_retains")
        rows = [(c.target, *(str(len(getattr(c, name))) for name in lists)) for c in sets if c.kind == group]
        if rows:
            print_table(("target", *counts), rows, right=counts, title=f"{group} ({len(rows)})")
    if kind is None:
        typer.echo(f"recipes for crce erase --config: {', '.join(recipe_names())}")
    return 0


def show(
    concept: Annotated[
        str, typer.Argument(metavar="CONCEPT|FILE.yaml", help="A target of the atlas (see: crce ls), or a YAML file.")
    ],
    yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the YAML instead: save it, edit it, erase with it.")
    ] = False,
) -> int:
    """Print the corefs and retains of a concept."""
    concepts = find_concepts(concept)
    if yaml:
        typer.echo(dump_concepts(concepts), nl=False)
        return 0
    names = {"target": "target", "kind": "kind", "erase from": "erase_from", "anchor": "anchor"}
    print_facts({name: getattr(concepts, attribute) for name, attribute in names.items()}, 10)
    sides = {"corefs: erased with the target": concepts.corefs, "retains: kept": concepts.retains}
    for title, related in sides.items():
        rows = [
            (r.text, str(certainty_word(r.certainty)), used_for(r), r.source)
            for r in sorted(related, key=lambda r: (r.held_out, -r.certainty))
        ]
        print_table(("text", "certainty", "used for", "source"), rows, title=title)
    return 0


def used_for(related: Related) -> str:
    return "evaluation" if related.held_out else "training"


def methods(json: JSONFlag = False) -> int:
    """Show the erasure methods, and on which models each is measured, experimental or refused."""
    with Bar("reading the methods"):
        from crce.backbones.families import FAMILIES, backbone_class
        from crce.methods.table import METHODS, Level, support

        levels = {name: {family: support(name, family).level for family in FAMILIES} for name in METHODS}
    if json:
        return print_json(levels)
    rows = []
    for name, row in levels.items():
        cells = ([backbone_class(f).models for f in FAMILIES if row[f] == level] for level in get_args(Level))
        rows.append((name, METHODS[name].description, *("; ".join(cell) for cell in cells)))
    print_table(("method", "how it erases", "measured", "experimental", "refused"), rows, show_lines=True)
    typer.echo("measured: docs/results.md has erasures of a trained model. experimental: run on tiny models.")
    return 0


def env(json: JSONFlag = False) -> int:
    """Print versions, device, memory and folders for bug reports."""
    import psutil
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    facts: dict[str, Any] = {"crce": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        facts[package] = "not installed"
        with suppress(metadata.PackageNotFoundError):
            facts[package] = metadata.version(package)
    facts |= {"threads": torch.get_num_threads(), "waiting": os.environ.get("OMP_WAIT_POLICY", "active").lower()}
    facts |= {"cpu_cores": psutil.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30, 1)}
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        gib = round(gpu.total_memory / 2**30, 1)
        facts |= {"device": gpu.name, "device_memory_gib": gib, "cuda": torch.version.cuda}
    else:
        facts["device"] = "mps" if torch.backends.mps.is_available() else "cpu"
    facts |= {"crce_cache": str(cache_folder()), "model_cache": HF_HUB_CACHE}
    return print_json(facts) if json else print_facts(facts, 18)
