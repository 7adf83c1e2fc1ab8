"""Names of a package that are loaded on first use, so that importing it imports none of the libraries behind it."""

import ast
import inspect
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


def lazy_names(package: str) -> Callable[[str], Any]:
    """A `__getattr__` (PEP 562) for a package: it loads what the package imports under `if TYPE_CHECKING:`.

    Type checkers and this function so read the same lines, which can't contradict each other.
    """

    @cache
    def homes() -> dict[str, str]:
        tree = ast.parse(Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8"))
        lines = (line for block in tree.body if isinstance(block, ast.If) for line in block.body)
        imported = (line for line in lines if isinstance(line, ast.ImportFrom))
        return {name.name: str(line.module) for line in imported for name in line.names}

    def __getattr__(name: str) -> Any:
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes()[name]), name)
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
