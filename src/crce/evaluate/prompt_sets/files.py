"""The files of prompt sets, read with every fault named by file and line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crce.concepts.faults import Fault, error_from
from crce.concepts.nodes import json_value, read_text
from crce.errors import ConfigError


POINTER = "version https://git-lfs"  # how a file begins that Git LFS has not fetched


def read(path: Path) -> str:
    """The text of a file.

    Raises:
        ConceptError: it is missing, can't be read, or is not UTF-8.
        ConfigError: it stands for a file that Git LFS keeps elsewhere.
    """
    text = read_text(path, "file of prompts")
    if text.startswith(POINTER):
        raise ConfigError(f"{path} is a pointer of Git LFS, not the prompts. Fetch them: git lfs pull.")
    return text


def read_lines(path: Path) -> list[str]:
    """The lines of a file, less the white space around them; blank ones are passed over.

    Raises:
        ConfigError: the file can't be read, or holds no line.
    """
    lines = [line for raw in read(path).split("\n") if (line := raw.strip())]
    if not lines:
        raise ConfigError(f"{path} holds no prompts. Write one on each line.")
    return lines


def read_table(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, each with the line that it ends on.

    Raises:
        ConfigError: the file can't be read.
        ConceptError: a column is missing, a row has more fields than the header, or there are no rows.
    """
    reader = csv.DictReader(io.StringIO(read(path), newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    faults = []
    try:
        header = reader.fieldnames or []
        if missing := [name for name in needed if name not in header]:
            given = ", ".join(repr(name) for name in header) or "nothing"
            text = f"the header has no column {missing[0]!r}, but {given}. Add it, or rename the one that is meant."
            raise error_from(str(path), [Fault(str(path), text, line=1)])
        for row in reader:
            if None in row:
                text = f"has {len(row[None])} more fields than the header. Put quotes around a text with commas."
                faults.append(Fault(str(path), text, line=reader.line_num))
            else:
                rows.append((reader.line_num, {name: value or "" for name, value in row.items()}))
    except csv.Error as error:
        faults.append(Fault(str(path), f"is no CSV ({error}). Close every quote.", line=reader.line_num + 1))
    if faults:
        raise error_from(str(path), faults)
    if not rows:
        raise error_from(str(path), [Fault(str(path), "there are no rows under the header.", line=1)])
    return rows


def read_list(path: Path) -> list[Any]:
    """The items of a JSON file that holds a list.

    Raises:
        ConfigError: the file can't be read.
        ConceptError: it is no JSON, no list, or an empty one.
    """
    items, repeated = json_value(read(path), str(path))
    if repeated:
        raise error_from(str(path), repeated)
    if not isinstance(items, list) or not items:
        raise error_from(str(path), [Fault(str(path), "holds no list of prompts. Write [...] with at least one.")])
    return items
