"""The prompt sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crce.concepts import ConceptSet
from crce.concepts.faults import did_you_mean
from crce.errors import ConfigError
from crce.evaluate.prompt_sets import hub, plain, unlearn_canvas
from crce.evaluate.prompt_sets.protocol import PromptSet


PROMPT_SETS: dict[str, Callable[[Path, ConceptSet, str | None], PromptSet]] = {
    "hub": hub.load,
    "unlearn-canvas": unlearn_canvas.load,
}


def load_prompt_set(spec: str, concepts: ConceptSet, concept: str | None = None) -> PromptSet:
    """Read a prompt set.

    Args:
        spec: hub:FOLDER, unlearn-canvas:FOLDER, or a file that ends in .csv, .json or .txt.
        concepts: what the run erased.
        concept: the set's name of it, where that is another.

    Raises:
        ConfigError: there is no such set, file or folder, or it has no prompts about this concept.
        ConceptError: a file is not as it should be; the message lists every fault with its line.
    """
    name, colon, rest = spec.strip().partition(":")
    if colon and name in PROMPT_SETS:
        if not rest.strip():
            raise ConfigError(f"--prompts {spec} names no folder. Write {name}:FOLDER.")
        return PROMPT_SETS[name](Path(rest.strip()).expanduser(), concepts, concept)
    path = Path(spec).expanduser()
    if not path.exists():
        others = f"{' or '.join(f'{known}:FOLDER' for known in PROMPT_SETS)}, or a file ({', '.join(plain.ENDINGS)})"
        hint = did_you_mean(name, list(PROMPT_SETS)) if colon or name in PROMPT_SETS else ""
        raise ConfigError(f"--prompts {spec!r} is no file and no prompt set.{hint} Give {others}.")
    return plain.load(path, concepts, concept)
