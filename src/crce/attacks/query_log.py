"""The query log of an attack: one line of JSON for each prompt that was tried, from which a stopped attack resumes.

The first line holds the settings of the attack. A log of other settings is overwritten.
"""

import json
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crce.files import append_line, write_text
from crce.judges.judge import JudgedImage


class Query(NamedTuple):
    """What the model was asked for and the judge was asked about."""

    model: str  # "base" or "erased"
    text: str
    state: str  # the name of learned embeddings or weights; "" for text alone
    expected: str  # the class whose probability was recorded


KnownImages = MutableMapping[tuple[Query, int], JudgedImage]
"""Judged images by query and seed."""


class QueryLog:
    """Judged images of earlier queries, beginning with those of an attack with the same settings, `made_of`.

    Without a path the log is in memory alone. `plain` are images of prompts that are text alone, read and extended;
    attacks on one run can share it.
    """

    def __init__(self, path: Path | None, made_of: dict[str, Any], plain: KnownImages | None = None) -> None:
        self.path = path
        self.reused = 0  # images that were not generated again
        self._known: KnownImages = {}  # of learned embeddings or weights
        self._plain: KnownImages = {} if plain is None else plain
        if path is None:
            return
        head = json.dumps({"made_of": made_of}, sort_keys=True)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        kept = [head]
        for line in lines[1:] if lines[:1] == [head] else ():
            try:
                read = json.loads(line)
                if None in read["words"]:  # an image that failed is tried again
                    continue
                self._remember(read)
            except (ValueError, KeyError, TypeError):  # cut short when the process was killed
                continue
            kept.append(line)
        write_text(path, "\n".join(kept) + "\n")

    def find(self, query: Query, seeds: Sequence[int]) -> list[JudgedImage] | None:
        """The judged images of a query; None unless those of every seed are known."""
        known = self._known if query.state else self._plain
        if not all((query, seed) in known for seed in seeds):
            return None
        self.reused += len(seeds)
        return [known[query, seed] for seed in seeds]

    def add(self, query: Query, seeds: Sequence[int], images: Sequence[JudgedImage], **context: Any) -> None:
        """Log judged images, at once; `context` goes into the line as well."""
        words, probabilities = [image.word for image in images], [image.probability for image in images]
        judged = {"seeds": list(seeds), "words": words, "probabilities": probabilities}
        line = {**context, **query._asdict(), **judged}
        self._remember(line)
        if self.path is not None:
            append_line(self.path, json.dumps(line))

    def _remember(self, line: dict[str, Any]) -> None:
        query = Query(*(line[name] for name in Query._fields))
        known = self._known if query.state else self._plain
        for seed, *judged in zip(line["seeds"], line["words"], line["probabilities"], strict=True):
            known[query, seed] = JudgedImage(*judged)
