"""The journal of an attack: a line of JSON for every prompt that was drawn, so that a stopped attack goes on.

The first line says what the attack was made of. A journal of something else is begun anew.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crce.errors import RunError
from crce.files import write_text


class Sight(NamedTuple):
    """What the judge saw in one picture.

    Attributes:
        word: its top class; None where no picture came.
        probability: of the expected class; 0 where no picture came.
    """

    word: str | None
    probability: float


Key = tuple[str, str, str, str, int]
"""Model ("base" or "erased"), text, state (a learned word or weights, "" for none), expected class, seed."""


class Journal:
    """What was drawn so far, in a file or, without one, in memory.

    Attributes:
        reused: pictures that were not drawn again.
    """

    def __init__(
        self, path: Path | None, made_of: dict[str, Any], plain: MutableMapping[Key, Sight] | None = None
    ) -> None:
        """
        Args:
            path: the file; None keeps nothing.
            made_of: run, judge, seeds and settings.
            plain: what several attacks on a run know in common of prompts that are text alone, read and filled.

        Raises:
            RunError: the file can't be read or written.
        """
        self.path = path
        self.reused = 0
        self._sights: dict[Key, Sight] = {}
        self._plain = {} if plain is None else plain
        if path is None:
            return
        head = json.dumps({"made_of": made_of}, ensure_ascii=True, sort_keys=True)
        lines = _read(path)
        if not lines or lines[0] != head:
            write_text(path, head + "\n")
            return
        kept = [head]
        for line in lines[1:]:
            try:
                self._remember(json.loads(line))
            except (ValueError, KeyError, TypeError):  # a line that a kill cut short: drawn again
                continue
            kept.append(line)
        write_text(path, "\n".join(kept) + "\n")

    def find(self, model: str, text: str, state: str, expected: str, seeds: Sequence[int]) -> list[Sight] | None:
        """What was seen of a prompt; None unless every seed was drawn."""
        keys: list[Key] = [(model, text, state, expected, seed) for seed in seeds]
        for known in (self._sights, self._plain):
            if all(key in known for key in keys):
                self.reused += len(keys)
                return [known[key] for key in keys]
        return None

    def add(
        self,
        model: str,
        text: str,
        state: str,
        expected: str,
        seeds: Sequence[int],
        sights: Sequence[Sight],
        **told: Any,
    ) -> None:
        """Write down what was seen, at once."""
        line = {
            **told,
            "model": model,
            "text": text,
            "state": state,
            "expected": expected,
            "seeds": list(seeds),
            "words": [sight.word for sight in sights],
            "probabilities": [sight.probability for sight in sights],
        }
        self._remember(line)
        if self.path is None:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=True) + "\n")
        except OSError as error:
            raise RunError(f"Cannot write {self.path}: {error.strerror or error}. Free some space.") from error

    def _remember(self, line: dict[str, Any]) -> None:
        for seed, word, probability in zip(line["seeds"], line["words"], line["probabilities"], strict=True):
            key: Key = (line["model"], line["text"], line["state"], line["expected"], seed)
            self._sights[key] = Sight(word, probability)
            if not line["state"]:
                self._plain[key] = self._sights[key]


def _read(path: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"Cannot read {path}: {error}. Delete it to attack anew.") from error
