"""crce: precise concept erasure for text-to-image diffusion models.

    run = crce.erase("walrus")  # from the bundled model; corefs and retains are suggested
    print(crce.evaluate(run).verdict)

`crce.suggest`, `erase`, `generate`, `evaluate`, `attack` and `export` do in Python what the verbs of the same names do
on the command line. They are loaded when they are first used: importing crce imports no other library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.api import erase
    from crce.attacks import attack
    from crce.evaluate import evaluate
    from crce.export import export
    from crce.sampling.samples import generate
    from crce.suggest import suggest

__version__ = "0.1.0"

__all__ = ["__version__", "attack", "erase", "evaluate", "export", "generate", "suggest"]

_CALLABLE_PACKAGES = ("evaluate", "export", "suggest")
_function = lazy_names(__name__)


def __getattr__(name: str) -> Any:
    return import_module(f"{__name__}.{name}") if name in _CALLABLE_PACKAGES else _function(name)
