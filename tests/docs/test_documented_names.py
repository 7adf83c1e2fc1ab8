"""Files and names that the documents quote exist."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from blocks import DOCUMENTS, ROOT


PATH = re.compile(r"(?<![\w/.-])((?:src/crce|tests|tools|benchmarks|docs)/[\w./-]*\w)")
NAME = re.compile(r"`(crce(?:\.\w+)+)`")
GROUPS = {"crce.methods", "crce.backbones", "crce.judges", "crce.suggesters", "crce.attacks", "crce.prompt_sets"}
GROUPS |= {"crce.export_formats"}  # of entry points


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_exists(document):
    for path in PATH.findall(document.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_dotted_name_exists(document):
    for name in NAME.findall(document.read_text(encoding="utf-8")):
        assert name in GROUPS or exists(name), name


def exists(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in one."""
    module, _, attribute = name.rpartition(".")
    try:
        import_module(name)
    except ImportError:
        return bool(module) and hasattr(import_module(module), attribute)
    return True
