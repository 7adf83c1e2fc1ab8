"""The contact sheet, and names of files and folders."""

from __future__ import annotations

from PIL import Image

from crce.files import free_folder, slug
from crce.sampling.pictures import CAPTION, SMALLEST, contact_sheet
from crce.sampling.pictures import SHEET_GAP as GAP


def test_sheet_holds_every_picture_in_its_place_and_crosses_out_what_is_missing():
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    sheet = contact_sheet([("before: a cat", [red, None]), ("after: a cat", [blue, blue])])
    assert sheet.size == (GAP + 2 * (SMALLEST + GAP), GAP + 2 * (CAPTION + SMALLEST + GAP))
    middle = GAP + CAPTION + SMALLEST // 2
    below = middle + CAPTION + SMALLEST + GAP
    right = GAP + SMALLEST + GAP + SMALLEST // 2
    assert sheet.getpixel((GAP + SMALLEST // 2, middle)) == (255, 0, 0)
    assert sheet.getpixel((right, middle)) == (128, 128, 128)
    assert sheet.getpixel((right, below)) == (0, 0, 255)


def test_large_pictures_are_made_smaller():
    sheet = contact_sheet([("a cat", [Image.new("RGB", (1024, 512))])])
    assert sheet.width < 300


def test_slug_is_safe_on_any_system():
    assert slug('A "red" cat: 1/2?') == "a-red-cat-1-2"
    assert slug("???") == "untitled"
    assert len(slug("very " * 100)) <= 60


def test_free_folder_never_takes_one_that_is_there(tmp_path):
    assert free_folder(tmp_path, "cat") == tmp_path / "cat-1"
    (tmp_path / "cat-1").mkdir()
    assert free_folder(tmp_path, "cat") == tmp_path / "cat-2"
