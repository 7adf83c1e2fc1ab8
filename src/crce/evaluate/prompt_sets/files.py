"""Files of prompts, read with every fault named by file and line, and the prompts in those of a user: CSV, JSON, text.

    prompt                                  the whole prompt
    group                                   prompts of one group are counted together; "prompts" where none is given
    concept                                 what the judge is asked about; the target where none is given
    measures                                erased or kept; where none is given, erased for the target and its corefs
    seed, evaluation_seed or sd_seed        of the first image

Other columns are passed over, so that the CSV of I2P (Schramowski et al., 2023) is read as it is.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crce.bounds import LARGEST_SEED
from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.concepts.faults import Fault, error_from
from crce.concepts.nodes import json_value, read_text
from crce.errors import ConfigError
from crce.evaluate.prompt_sets.prompt_set import Number, PromptSet
from crce.evaluate.prompts import Measures, Prompt, PromptGroup
from crce.files import slug


GROUP = "prompts"
SEED_COLUMNS = ("seed", "evaluation_seed", "sd_seed")
MEASURES = ("erased", "kept")
ENDINGS = (".csv", ".json", ".txt")
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


def load(path: Path, concepts: ConceptSet, concept: str | None = None) -> PromptSet:
    """The prompts of a file.

    `path` ends in .csv, .json or .txt; the rest as in `load_prompt_set`.

    Raises:
        ConfigError: the file can't be read, or is of another kind.
        ConceptError: a line is not as it should be; the message lists every fault.
    """
    erased = {fold(t) for t in (concepts.target, *(r.text for r in concepts.corefs), *([concept] if concept else []))}
    rows: dict[tuple[str, Measures], list[Prompt]] = {}
    faults = []
    for line, index, row in _rows(path):
        try:
            group, measures, prompt = _read(row, erased)
        except ValueError as error:
            faults.append(Fault(str(path), str(error), line=line, field="item", index=index))
        else:
            rows.setdefault((group, measures), []).append(prompt)
    if faults:
        raise error_from(str(path), faults)
    both = {name for name, measures in rows if measures == "erased"} & {name for name, m in rows if m == "kept"}
    titles = {key: f"{key[0]} ({key[1]})" if key[0] in both else key[0] for key in rows}
    groups = tuple(PromptGroup(titles[key], titles[key], key[1], tuple(prompts)) for key, prompts in rows.items())
    numbers = tuple(Number(group.name, group.name) for group in groups)
    return PromptSet(slug(path.stem), path.name, path, concept, groups, numbers)


def _rows(path: Path) -> Iterator[tuple[int | None, int | None, Any]]:
    """The rows of a file, each with its line in a CSV file or its index in a JSON list."""
    if path.suffix.lower() == ".csv":
        yield from ((line, None, row) for line, row in read_table(path, ["prompt"]))
    elif path.suffix.lower() == ".json":
        items = enumerate(read_list(path))
        yield from ((None, i, {"prompt": item} if isinstance(item, str) else item) for i, item in items)
    else:
        yield from ((None, None, {"prompt": text}) for text in read_lines(path))


def _read(row: Any, erased: set[str]) -> tuple[str, Measures, Prompt]:
    """The group and the prompt of a row, and what it measures; `erased` are the folded phrases of the target.

    Raises:
        ValueError: the row is not as it should be.
    """
    if not isinstance(row, Mapping):
        raise ValueError('is neither a prompt nor an object with one. Write "..." or {"prompt": "..."}.')
    prompt, concept, group, measures = (_text(row, name) for name in ("prompt", "concept", "group", "measures"))
    if not prompt:
        raise ValueError("has no prompt. Write one, or take the line out.")
    if measures and measures not in MEASURES:
        raise ValueError(f"measures is {measures!r}. Use erased or kept, or leave it empty.")
    of_target = not concept or fold(concept) in erased
    if measures == "kept" and of_target:
        raise ValueError("measures kept, but asks about the target. Name in concept what should be kept.")
    if measures == "erased" and not of_target:
        raise ValueError(f"measures erased, but {concept!r} is no phrase of the target. Leave concept empty.")
    seed = next((text for name in SEED_COLUMNS if (text := _text(row, name))), "")
    digits = seed.removesuffix(".0")  # as a spreadsheet writes it
    if seed and (not digits.isdecimal() or int(digits) > LARGEST_SEED):
        raise ValueError(f"the seed is {seed!r}. Use a whole number from 0 to {LARGEST_SEED}.")
    made = Prompt(prompt, phrases=() if of_target else (concept,), seeds=(int(digits),) if seed else ())
    return group or GROUP, "erased" if of_target else "kept", made


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise ValueError(f"{name} is {value!r}. Write a text.")
