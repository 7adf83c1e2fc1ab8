"""Runs in the forms that other programs load, what is in such files, and their way to the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.lazy import lazy_names, make_callable


if TYPE_CHECKING:
    from crce.export.comparison import Comparison
    from crce.export.formats import Exported, export
    from crce.export.inspection import Inspection, check
    from crce.export.metadata import read_facts
    from crce.export.publication import Published, push

__all__ = ["Comparison", "Exported", "Inspection", "Published", "check", "export", "push", "read_facts"]

__getattr__ = lazy_names(
    __name__,
    {
        "Comparison": "comparison",
        "Exported": "formats",
        "Inspection": "inspection",
        "Published": "publication",
        "check": "inspection",
        "export": "formats",
        "push": "publication",
        "read_facts": "metadata",
    },
)

make_callable(__name__)  # crce.export(...) is export(...) of this package
