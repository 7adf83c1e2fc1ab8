"""The readers of prompt sets by name."""

from collections.abc import Callable
from pathlib import Path

from crce.concepts import ConceptSet
from crce.concepts.faults import did_you_mean
from crce.errors import ConfigError
from crce.evaluate.prompt_sets import files
from crce.evaluate.prompt_sets.prompt_set import PromptSet
from crce.registry import Table


Reader = Callable[[Path, ConceptSet, str | None], PromptSet]

PROMPT_SETS: Table[str | Reader] = Table(
    "prompt set",
    "crce.prompt_sets",
    {
        "hub": "crce.evaluate.prompt_sets.hub:load",
        "unlearn-canvas": "crce.evaluate.prompt_sets.unlearn_canvas:load",
        "emma": "crce.evaluate.prompt_sets.emma:load",
    },
)
"""By name a function of the folder, the concept set and the set's name of the concept that returns a prompt set."""


def load_prompt_set(spec: str, concepts: ConceptSet, concept: str | None = None) -> PromptSet:
    """Read a prompt set.

    Args:
        spec: NAME:FOLDER with a name in `PROMPT_SETS`, or a file that ends in .csv, .json or .txt.
        concepts: what the run erased.
        concept: the set's name of it, where that is another.

    Raises:
        ConfigError: there is no such set, file or folder, or it has no prompts about this concept.
        ConceptError: a file is malformed; the message lists every fault with its line.
    """
    name, colon, rest = spec.strip().partition(":")
    names = list(PROMPT_SETS)
    if colon and name in names:
        if not rest.strip():
            raise ConfigError(f"--prompts {spec} names no folder. Write {name}:FOLDER.")
        read = PROMPT_SETS.resolve(name, PROMPT_SETS[name])
        return read(Path(rest.strip()).expanduser(), concepts, concept)
    path, endings = Path(spec).expanduser(), ", ".join(files.ENDINGS)
    folders = " or ".join(f"{known}:FOLDER" for known in names)
    if path.is_dir() or (path.exists() and path.suffix.lower() not in files.ENDINGS):
        raise ConfigError(f"{path} is no file of prompts. Give one that ends in {endings}, or {folders}.")
    if not path.exists():
        hint = did_you_mean(name, names) if colon or name in names else ""
        raise ConfigError(
            f"--prompts {spec!r} is no file and no prompt set.{hint} Give {folders}, or a file ({endings})."
        )
    return files.load(path, concepts, concept)
