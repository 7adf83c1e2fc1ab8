"""Names of a package that are loaded on first use, so that importing it imports none of the libraries behind it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` (PEP 562) for a package.

    Args:
        package: the package's `__name__`.
        home: each public name with the module of the package that defines it.
    """

    def __getattr__(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)  # from now on it is found without this function
        return value

    return __getattr__
