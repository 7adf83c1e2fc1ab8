"""The film of an erasure."""

from __future__ import annotations

import pytest
import short_run
from PIL import Image

from crce.backbones import load_backbone
from crce.files import read_tensors
from crce.sampling.film import REQUEST, Film, film_phrases, frames_of
from crce.training import Step, erase, load_config


@pytest.fixture(scope="module")
def settings():
    return load_config("demo", {**short_run.SETTINGS, "steps": 3})


def test_the_phrases_are_the_target_a_coref_and_a_retain():
    assert film_phrases([short_run.SET]) == ["cat", "kitty", "dog"]


def test_a_film_shows_the_model_in_training_and_does_not_change_it(tmp_path, demo_backbone, settings):
    plain = erase(short_run.SET, config=settings, backbone=demo_backbone, out=tmp_path / "plain")
    filmed = erase(short_run.SET, config=settings, backbone=demo_backbone, out=tmp_path / "filmed", on_event=Film())
    frames = frames_of(filmed.folder)
    assert [frame.name for frame in frames] == [f"step-{step:06d}.webp" for step in range(4)]
    assert len({frame.read_bytes() for frame in frames}) == 4
    with Image.open(frames[0]) as frame:
        assert frame.size == (3 * 64 + 2 * 2, 64)
    (left, _), (right, _) = read_tensors(plain.adapter), read_tensors(filmed.adapter)
    assert all(left[name].equal(right[name]) for name in left)


def test_a_frame_can_be_asked_for(tmp_path, demo_backbone, settings, monkeypatch):
    monkeypatch.setattr("crce.sampling.film.FRAMES", 2)
    film = Film()

    def ask(event):
        if isinstance(event, Step) and event.step == 2:
            (tmp_path / "run" / REQUEST).touch()
        film(event)

    erase(short_run.SET, config=settings, backbone=demo_backbone, out=tmp_path / "run", on_event=ask)
    assert [int(frame.stem[5:]) for frame in frames_of(tmp_path / "run")] == [0, 2, 3]
    assert not (tmp_path / "run" / REQUEST).exists()


def test_a_film_of_weights_in_half_precision_has_pictures(tmp_path, tiny_folder, monkeypatch):
    backbone = load_backbone(str(tiny_folder), device="cpu", dtype="bfloat16")
    pictures = []
    monkeypatch.setattr("crce.sampling.film.tile", lambda images: pictures.extend(images) or Image.new("RGB", (8, 8)))
    erase(short_run.SET, config=load_config("uce"), backbone=backbone, out=tmp_path / "run", on_event=Film())
    assert len(pictures) == 6
    assert None not in pictures
