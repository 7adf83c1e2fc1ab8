"""Scripts of benchmarks/ and tools/ as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


ROOT = Path(__file__).parents[1]


def load(place: str) -> ModuleType:
    """The script at a path in the clone. It is among the loaded modules, where dataclasses look for their types."""
    name = place.removesuffix(".py").replace("/", "_")  # there are several of one file name
    spec = importlib.util.spec_from_file_location(name, ROOT / place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
