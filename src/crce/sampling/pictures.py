"""Images for reports: strips of base over erased images on disk, and data URIs for a page."""

import base64
import io
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw

from crce.files import write_atomic


Picture = Image.Image | None
"""A generated image; None where generation failed."""

PAGE_SIZE = 192  # pixels of the longer side in the page
GAP = 2
NO_PICTURE = (128, 128, 128)
SHEET = "sheet.png"
SHEET_GAP, CAPTION = 4, 20  # pixels
SMALLEST, LARGEST = 128, 256  # side of an image on the sheet, pixels


def write_strips(
    folder: Path, prompts: Sequence[tuple[str, str]], base: list[list[Picture]], erased: list[list[Picture]]
) -> list[str]:
    """Write one WebP per prompt (group and text): base images above, erased ones below, grey where one failed.

    Strips of an earlier evaluation are removed. Returns the file names, in the order of the prompts.
    """
    names = []
    for i, ((group, text), above, below) in enumerate(zip(prompts, base, erased, strict=True)):
        # of letters and digits, which every file system accepts
        name = re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:40] or "prompt"
        names.append(f"{i:02d}-{group}-{name}.webp")
        write_atomic(folder / names[-1], partial(tile(above, below).save, format="WEBP", quality=92))
    for path in folder.glob("*.webp"):
        if path.name not in names:
            path.unlink()
    return names


def contact_sheet(rows: Sequence[tuple[str, Sequence[Picture]]]) -> Image.Image:
    """Lay out rows of images, each with its caption; None leaves a crossed-out place."""
    widest = max((p.width for _, pictures in rows for p in pictures if p is not None), default=SMALLEST)
    side = min(max(widest, SMALLEST), LARGEST)
    width, height = side + SHEET_GAP, CAPTION + side + SHEET_GAP
    columns = max(len(pictures) for _, pictures in rows)
    sheet = Image.new("RGB", (SHEET_GAP + columns * width, SHEET_GAP + len(rows) * height), "white")
    ink = ImageDraw.Draw(sheet)
    for row, (caption, pictures) in enumerate(rows):
        top = SHEET_GAP + row * height
        ink.text((SHEET_GAP, top + 2), caption, fill="black", font_size=14)
        for column, picture in enumerate(pictures):
            corner = (SHEET_GAP + column * width, top + CAPTION)
            if picture is not None:
                sheet.paste(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), corner)
                continue
            place = (corner, (corner[0] + side - 1, corner[1] + side - 1))
            ink.rectangle(place, outline="gray")
            ink.line(place, fill="gray")
    return sheet


def write_sheet(folder: Path, rows: Sequence[tuple[str, Sequence[Picture]]]) -> Path:
    """Write a contact sheet into a folder, and return its path."""
    write_atomic(folder / SHEET, partial(contact_sheet(rows).save, format="PNG"))
    return folder / SHEET


def is_blank(image: Image.Image) -> bool:
    """Whether every pixel is the same: what NaN latents and safety filters leave, and no model generates."""
    return image.convert("RGB").getcolors(1) is not None


def data_uri(image: Image.Image) -> str:
    """The image as a WebP data URI, scaled down to at most `PAGE_SIZE` pixels a side."""
    small = image.convert("RGB")
    small.thumbnail((PAGE_SIZE, PAGE_SIZE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Pixels of an image that is shown enlarged must stay clean.
    small.save(buffer, format="WEBP", quality=92 if max(small.size) < PAGE_SIZE else 75)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def tile(*rows: Sequence[Picture]) -> Image.Image:
    """Rows of images of one size, grey where one failed."""
    width, height = next((image.size for row in rows for image in row if image is not None), (64, 64))
    size = (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    strip = Image.new("RGB", size, "white")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            place = (column * (width + GAP), row * (height + GAP))
            strip.paste(image or Image.new("RGB", (width, height), NO_PICTURE), place)
    return strip
