from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from crce.errors import RunError
from crce.sampling.pictures import data_uri, is_blank, write_strips


def read_uri(uri: str) -> Image.Image:
    kind, content = uri.split(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def red(size: int = 16) -> Image.Image:
    return Image.new("RGB", (size, size), (200, 0, 0))


def test_strip_has_base_over_erased_and_grey_for_a_failure(tmp_path):
    blue = Image.new("RGB", (16, 16), (0, 0, 200))
    (name,) = write_strips(tmp_path, [("coref", "big cat")], [[red(), red()]], [[blue, None]])
    assert name == "00-coref-big-cat.webp"
    strip = Image.open(tmp_path / name).convert("RGB")
    assert strip.size == (34, 34)
    for place, colour in {(8, 8): (200, 0, 0), (8, 26): (0, 0, 200), (26, 26): (128, 128, 128)}.items():
        assert strip.getpixel(place) == pytest.approx(colour, abs=12)


def test_file_names_are_safe_everywhere(tmp_path):
    texts = ["../../etc/passwd", 'a "b": c?', "кошка", "x" * 300]
    names = write_strips(tmp_path, [("retain", t) for t in texts], [[red()]] * 4, [[red()]] * 4)
    assert all(len(name) < 80 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.") for name in names)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_strips_of_an_earlier_evaluation_are_removed(tmp_path):
    write_strips(tmp_path, [("target", "cat"), ("coref", "kitty")], [[red()]] * 2, [[red()]] * 2)
    names = write_strips(tmp_path, [("target", "dog")], [[red()]], [[red()]])
    assert [p.name for p in tmp_path.iterdir()] == names


def test_strip_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "00-target-cat.webp").mkdir()
    with pytest.raises(RunError, match="Cannot write"):
        write_strips(tmp_path, [("target", "cat")], [[red()]], [[red()]])


@pytest.mark.parametrize(("size", "shown"), [((64, 64), (64, 64)), ((512, 256), (192, 96))])
def test_data_uri_scales_large_pictures_down(size, shown):
    assert read_uri(data_uri(Image.new("RGB", size, "green"))).size == shown


def test_blank():
    assert is_blank(red())
    image = red()
    image.putpixel((3, 3), (201, 0, 0))
    assert not is_blank(image)
