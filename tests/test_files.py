"""What every room writes with."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch

from crce.files import free_file, sha256, write_json, write_tensors, write_text


def test_half_a_character_is_written_as_an_escape_and_read_again(tmp_path):
    value = {"reply": "a \ud800 and é 🐈", "list": [1, "\udfff"]}
    write_json(tmp_path / "odd.json", value)
    text = (tmp_path / "odd.json").read_text(encoding="utf-8")
    assert "\\ud800" in text
    assert "é 🐈" in text
    assert json.loads(text) == value


def test_a_name_is_free_when_it_is_free_with_every_suffix(tmp_path):
    base = tmp_path / "cat"
    assert free_file(base, ".yaml", ".json") == tmp_path / "cat.yaml"
    (tmp_path / "cat.json").touch()
    assert free_file(base, ".yaml", ".json") == tmp_path / "cat-2.yaml"
    (tmp_path / "cat-2.yaml").touch()
    assert free_file(base, ".yaml", ".json") == tmp_path / "cat-3.yaml"
    assert free_file(tmp_path / "a.before-review", ".yaml") == tmp_path / "a.before-review.yaml"


def test_a_hash_is_that_of_the_files_one_after_the_other(tmp_path):
    (tmp_path / "a").write_bytes(b"left ")
    (tmp_path / "b").write_bytes(b"right")
    assert sha256(tmp_path / "a", tmp_path / "b") == hashlib.sha256(b"left right").hexdigest()


@pytest.mark.skipif(os.name == "nt", reason="permissions of this kind are those of POSIX systems")
def test_weights_can_be_read_by_whom_other_files_can(tmp_path):
    write_text(tmp_path / "words.txt", "cat")
    write_tensors(tmp_path / "weights.safetensors", {"w": torch.zeros(1)}, {})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
