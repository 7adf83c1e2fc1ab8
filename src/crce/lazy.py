"""Names of a package that are loaded on first use, so that importing it imports none of the libraries behind it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
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


class CallablePackage(ModuleType):
    """A package that can be called like its function of the same name.

    `crce.evaluate(run)` and `crce.evaluate.stats` then both work, in whatever order things are imported: importing a
    submodule sets `crce.evaluate` to the package, so a function that is put there instead would not stay.
    """

    @property
    def _function(self) -> Callable[..., Any]:
        return getattr(self, self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


def make_callable(package: str) -> None:
    """Make a package callable, see `CallablePackage`; `package` is its `__name__`."""
    sys.modules[package].__class__ = CallablePackage
