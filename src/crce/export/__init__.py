"""Export runs in the formats of other programs, inspect such files, and publish them on the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.lazy import lazy_names, make_callable


if TYPE_CHECKING:
    from crce.export.formats import FORMATS, Exported, ExportFormat, export
    from crce.export.inspection import Inspection, check
    from crce.export.metadata import read_metadata
    from crce.export.publication import Published, push

__all__ = ["FORMATS", "ExportFormat", "Exported", "Inspection", "Published", "check", "export", "push"]
__all__ += ["read_metadata"]

__getattr__ = lazy_names(__name__)

make_callable(__name__)  # crce.export(...) is export(...) of this package
