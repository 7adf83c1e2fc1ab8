"""Files that would never end, or not in any time that somebody waits, are refused at once."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from crce.backbones.loading import model_path
from crce.bench.reader import read_grid
from crce.concepts import read_concepts
from crce.config import load_config
from crce.errors import CRCEError, ModelError
from crce.evaluate.prompt_sets.files import read, read_list
from crce.files import LARGEST_TEXT, read_bytes
from crce.judges.vision import _read as read_judgement
from crce.suggest.memory import Memory
from crce.suggest.prompts import _turns
from crce.suggest.record import read_record


READERS = {
    "concepts": read_concepts,
    "recipe": load_config,
    "grid": read_grid,
    "prompts": read,
    "template": _turns,
    "record": read_record,
    "decisions": lambda path: Memory(path).decisions(),
}
LAUGHS = "a: &a [x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(9)
)
UNBOUNDED = {
    "a million nodes by reference": LAUGHS + "KEY: *j\n",
    "itself": "KEY: &i [*i]\n",
    "deep": "KEY: " + "[" * 900 + "]" * 900,
    "deeper": "KEY: " + "[" * 100_000,
    "a number of a million digits": "KEY: 0x" + "f" * 1_000_000,
    "a sum of a million terms": "KEY: 1" + ":1" * 1_000_000,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read(tmp_path, monkeypatch, reader, kind):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path("/dev/zero") if kind == "device" else Path("file.yaml")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    with pytest.raises(CRCEError, match="pipe, a socket or a device|no recipe"):
        READERS[reader](path)


def test_no_more_is_read_than_the_largest_text(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        file.truncate(LARGEST_TEXT + 1)  # takes no space
    with pytest.raises(OSError, match="more than 16 MB"):
        read_bytes(tmp_path / "file")


@pytest.mark.parametrize(("reader", "key"), [("concepts", "target"), ("recipe", "steps"), ("grid", "concepts")])
@pytest.mark.parametrize("text", UNBOUNDED.values(), ids=UNBOUNDED)
def test_nested_and_shared_values_are_counted(tmp_path, reader, key, text):
    path = tmp_path / "file.yaml"
    path.write_text(text.replace("KEY", key))
    with pytest.raises(CRCEError) as caught:
        READERS[reader](path)
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deep_json_is_refused(tmp_path, depth):
    path, deep = tmp_path / "file.json", "[" * depth + "]" * depth
    path.write_text(deep)
    for reader in (read_concepts, read_list, read_record):
        with pytest.raises(CRCEError):
            reader(path)
    assert read_judgement(deep) is None


def test_a_set_has_no_more_phrases_than_anybody_reads(tmp_path):
    path = tmp_path / "cat.yaml"
    path.write_text("target: cat\ncorefs: [" + ", ".join(f"cat {i}" for i in range(20_000)) + "]\n")
    with pytest.raises(CRCEError, match="one of 20000 phrases. Keep 5000 at most"):
        read_concepts(path)


def test_of_many_faults_the_first_are_listed(tmp_path):
    path = tmp_path / "cat.json"
    path.write_text(json.dumps({"target": "cat", "corefs": ["dog"] * 1000}))
    with pytest.raises(CRCEError, match="has 999 faults, of which the first 50 are:") as caught:
        read_concepts(path)
    assert len(str(caught.value).splitlines()) == 51


@pytest.mark.parametrize("reader", ["prompts", "template", "concepts", "recipe"])
def test_control_characters_of_a_file_are_named_with_their_line(tmp_path, reader):
    (tmp_path / "file.yaml").write_bytes(b"# User\na cat\x00\n")
    with pytest.raises(CRCEError, match="file.yaml:2: byte 0x00 is a control character"):
        READERS[reader](tmp_path / "file.yaml")


@pytest.mark.parametrize("name", ["", "\x1b[31mred", "a\u202eb"])
def test_names_of_models_are_names(name):
    with pytest.raises(ModelError, match="The name of the model .*(empty|character)"):
        model_path(name)
