"""A contact sheet: rows of images under their captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from PIL.Image import Image

GAP, CAPTION = 4, 20  # pixels
SMALLEST, LARGEST = 128, 256  # side of an image on the sheet, pixels


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image | None]]]) -> Image:
    """Lay out rows of images.

    Args:
        rows: a caption and its images; None leaves a crossed-out place.

    Returns:
        The sheet.
    """
    from PIL import Image, ImageDraw

    widest = max((p.width for _, pictures in rows for p in pictures if p is not None), default=SMALLEST)
    side = min(max(widest, SMALLEST), LARGEST)
    columns = max(len(pictures) for _, pictures in rows)
    height = CAPTION + side + GAP
    sheet = Image.new("RGB", (GAP + columns * (side + GAP), GAP + len(rows) * height), "white")
    ink = ImageDraw.Draw(sheet)
    for row, (caption, pictures) in enumerate(rows):
        top = GAP + row * height
        ink.text((GAP, top + 2), caption, fill="black", font_size=14)
        for column, picture in enumerate(pictures):
            corner = (GAP + column * (side + GAP), top + CAPTION)
            if picture is not None:
                sheet.paste(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), corner)
            else:
                end = (corner[0] + side - 1, corner[1] + side - 1)
                ink.rectangle((corner, end), outline="gray")
                ink.line((corner, end), fill="gray")
    return sheet
