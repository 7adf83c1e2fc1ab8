"""What every room writes with."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch

from crce.files import append_line, free_file, read_tensors, sha256, write_json, write_tensors, write_text


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


def test_equal_weights_are_equal_bytes_and_a_changed_byte_is_seen(tmp_path):
    tensors = {"w": torch.randn(3, 3), "half": torch.ones((), dtype=torch.bfloat16), "none": torch.zeros(0, 2)}
    odd = '"\\\n\t\x01\x7f é 🐈 \u2028 "sha256":"' + 64 * "0" + '"'
    metadata = {"format": "pt", "odd": odd} | {f"key {i}": "value" for i in range(8)}
    path = tmp_path / "weights.safetensors"
    written = set()
    for _ in range(8):
        write_tensors(path, tensors, metadata)
        written.add(path.read_bytes())
    (data,) = written
    read, kept = read_tensors(path)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert {key: value for key, value in kept.items() if key != "sha256"} == metadata
    for place in (data.index(b"value"), len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(OSError, match="has changed since it was written. To use it as it is, remove sha256"):
            read_tensors(path)


def test_a_line_after_a_torn_one_stays_whole(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, "one")
    path.write_bytes(path.read_bytes() + '{"answer": "é'.encode()[:-1])
    append_line(path, "two")
    append_line(path, "three")
    assert path.read_bytes().splitlines()[-2:] == [b"two", b"three"]
