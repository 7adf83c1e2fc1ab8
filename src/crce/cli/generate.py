"""`crce generate`: draw pictures with a model, or with a run before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crce.cli.flags import DeviceFlag, RevisionFlag
from crce.cli.progress import Bar
from crce.cli.terminal import error_line, quiet_libraries
from crce.files import free_folder, slug


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What to draw.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Pictures for each prompt.")] = 4,
    model: Annotated[
        str | None,
        typer.Option(
            help="demo (bundled), a Hub id, a folder, or a single .safetensors file.",
            show_default="demo, or the model that --run erased from",
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A run: draw before and after its erasure.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of a prompt's first picture; the next ones count up.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 20,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale.")] = 4.0,
    negative: Annotated[str | None, typer.Option(help="What the pictures should not show.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures.", show_default="pictures/PROMPT-N, the next free N"),
    ] = None,
    revision: RevisionFlag = None,
    device: DeviceFlag = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16, bfloat16.")] = "auto",
) -> int:
    """Draw pictures of prompts, and a contact sheet of them all."""
    quiet_libraries()
    from crce.backbones import load_backbone, load_pipeline
    from crce.training import Erasure, apply_adapter, load_base

    places = [(prompt, seed + k) for prompt in prompts for k in range(n)]
    drawn: dict[str, list[Image | None]] = {}
    with Bar("drawing") as bar:
        if run is None:
            pipe = load_pipeline(model or "demo", device=device, dtype=dtype, revision=revision)
            drawn[""] = _draw(pipe, places, steps, guidance, negative, bar)
        else:
            erasure = Erasure.load(run)
            if model is None:
                backbone = load_base(erasure, device=device, dtype=dtype, offload=erasure.config.offload)
            else:
                backbone = load_backbone(model, device=device, dtype=dtype, revision=revision)
            adapter = apply_adapter(backbone, erasure.adapter)
            with adapter.disabled():
                drawn["before"] = _draw(backbone.pipe, places, steps, guidance, negative, bar)
            drawn["after"] = _draw(backbone.pipe, places, steps, guidance, negative, bar)

    folder = out or free_folder(Path("pictures"), slug(prompts[0]))
    missing = _save(folder, prompts, places, drawn)
    for line in missing:
        error_line(line)
    return 1 if missing else 0


def _draw(
    pipe: DiffusionPipeline,
    places: list[tuple[str, int]],
    steps: int,
    guidance: float,
    negative: str | None,
    bar: Bar,
) -> list[Image | None]:
    from crce.sampling import draw

    prompts, seeds = zip(*places, strict=True)
    done = 0

    def show(count: int) -> None:
        nonlocal done
        done += count
        bar.show(done, len(places))

    return draw(pipe, list(prompts), list(seeds), steps=steps, guidance=guidance, negative=negative, on_drawn=show)


def _save(
    folder: Path, prompts: list[str], places: list[tuple[str, int]], drawn: dict[str, list[Image | None]]
) -> list[str]:
    """Write every picture and the contact sheet, print their paths, and return what is missing, in words."""
    from crce.cli.contact_sheet import contact_sheet
    from crce.files import write_atomic

    missing, rows = [], []
    n = len(places) // len(prompts)
    for i, prompt in enumerate(prompts):
        part = slice(i * n, (i + 1) * n)
        stem = slug(prompt) if len(prompts) == 1 else f"{i + 1}-{slug(prompt)}"
        for when, pictures in drawn.items():
            rows.append((f"{when}: {prompt}" if when else prompt, pictures[part]))
            for (_, seed), picture in zip(places[part], pictures[part], strict=True):
                if picture is None:
                    missing.append(
                        f"no picture of {prompt!r}{' ' + when if when else ''} from seed {seed}: drawing failed"
                    )
                    continue
                path = folder / f"{stem}-{seed}{'-' + when if when else ''}.png"
                write_atomic(path, lambda partial, picture=picture: picture.save(partial, format="PNG"))  # type: ignore[misc]
                typer.echo(path)
    sheet = contact_sheet(rows)
    write_atomic(folder / "sheet.png", lambda partial: sheet.save(partial, format="PNG"))
    typer.echo(folder / "sheet.png")
    return missing
