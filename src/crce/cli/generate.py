"""`crce generate`: images from a model, or from a run before and after its erasure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crce.cli.flags import DeviceFlag, GuidanceFlag, RevisionFlag, StepsFlag
from crce.cli.terminal import Bar, error_line
from crce.files import check_writable, free_folder, slug, write_atomic


if TYPE_CHECKING:
    from crce.sampling.samples import Sample


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What the images should show.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Images for each prompt.")] = 4,
    model: Annotated[
        str | None,
        typer.Option(
            help="demo (bundled), a Hub id, a folder, or a single .safetensors file.",
            show_default="demo, or the model that --run erased from",
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A run: generate before and after its erasure.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of a prompt's first image; the next ones count up.")] = 0,
    steps: StepsFlag = None,
    guidance: GuidanceFlag = None,
    negative: Annotated[str | None, typer.Option(help="What the images should not show.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the images.", show_default="pictures/PROMPT-N, the next free N")
    ] = None,
    revision: RevisionFlag = None,
    device: DeviceFlag = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16, bfloat16.")] = "auto",
) -> int:
    """Generate images of prompts, and a contact sheet of them all."""
    settings = {name: value for name, value in locals().items() if name != "out"}
    check_writable(out or Path("pictures"), folder=True)
    with Bar("generating", "loading the model") as bar:
        from crce.sampling.samples import generate as generate_samples

        samples = generate_samples(**settings, on_image=bar.show)
    folder = out or free_folder(Path("pictures"), slug(prompts[0]))
    missing = _save(folder, prompts, samples, before=run is not None)
    for line in missing:
        error_line(line)
    return 1 if missing else 0


def _save(folder: Path, prompts: list[str], samples: list[Sample], *, before: bool) -> list[str]:
    """Write every image and the contact sheet, print their paths, and return what is missing, in words."""
    from crce.sampling.pictures import write_sheet

    missing, rows = [], []
    n = len(samples) // len(prompts)
    for i, prompt in enumerate(prompts):
        part = samples[i * n : (i + 1) * n]
        stem = slug(prompt) if len(prompts) == 1 else f"{i + 1}-{slug(prompt)}"
        images = {"before": [s.before for s in part]} if before else {}
        images["after" if before else ""] = [s.image for s in part]
        for when, row in images.items():
            rows.append((f"{when}: {prompt}" if when else prompt, row))
            for sample, image in zip(part, row, strict=True):
                if image is None:
                    which = f"{prompt!r} {when}" if when else repr(prompt)
                    missing.append(f"no image of {which} from seed {sample.seed}: generating failed")
                    continue
                path = folder / f"{stem}-{sample.seed}{'-' + when if when else ''}.png"
                write_atomic(path, lambda partial, image=image: image.save(partial, format="PNG"))  # type: ignore[misc]
                typer.echo(path)
    typer.echo(write_sheet(folder, rows))
    return missing
