"""The prompts of EMMA (arXiv 2512.17320, CVPR 2026), read from a clone of its repository.

prompts/DOMAIN/TASK.json    [{CONCEPT: [PROMPT, ...]}, ...], in some files one mapping without the list

The domains are object, celebrity, art, copyright and nsfw. Of a concept that two of them have the first counts, unless
it is named DOMAIN/CONCEPT.
"""

import re
from pathlib import Path

from crce.concepts import ConceptSet
from crce.concepts.faults import Fault, error_from
from crce.concepts.nodes import json_value
from crce.errors import ConfigError
from crce.evaluate.prompt_sets.files import read
from crce.evaluate.prompt_sets.prompt_set import Number, PromptSet, find_concept, key
from crce.evaluate.prompts import Prompt, PromptGroup


DOMAINS = ("object", "celebrity", "art", "copyright", "nsfw")
ERASING = {
    "1_name": "the name",
    "2_prefix": "the name with words before it",
    "3_variant": "other names",
    "4_short": "short prompts",
    "5_long": "long prompts",
}
RETAINING = {"6_random": "other concepts", "7_hard": "similar concepts"}
FRAME = re.compile(r"^an? (?:image|photo) (?:of the|of|in the style of|with) (?=.+$)", re.IGNORECASE)


def load(path: Path, concepts: ConceptSet, concept: str | None = None) -> PromptSet:
    """The prompts about what a run erased.

    `path` is a clone of the repository, or its folder prompts; the rest as in `load_prompt_set`.

    Raises:
        ConfigError: the folder is missing or is none of EMMA's, or EMMA has no prompts about this concept.
        ConceptError: a file is not as it should be.
    """
    root = next((r for r in (path, path / "prompts") if (r / "object" / "1_name.json").is_file()), None)
    if root is None:
        what = f"{path} holds no prompts of EMMA" if path.is_dir() else f"There is no folder {path}"
        raise ConfigError(f"{what}. Clone github.com/lobsterlulu/EMMA, and give emma:FOLDER.")
    names: dict[str, tuple[str, str]] = {}
    for domain in DOMAINS:
        for own in _read(root / domain / "1_name.json"):
            names.setdefault(own.replace("-", " "), (domain, own))
            names[f"{domain}/{own}"] = (domain, own)
    if concept is None:  # EMMA writes "hotdog" and "under armour" as one word
        close = {_squeezed(name): name for name in reversed(names)}
        texts = [concepts.target, *(r.text for r in concepts.corefs)]
        concept = next((close[_squeezed(text)] for text in texts if _squeezed(text) in close), None)
    name = find_concept(concepts, concept, names, f"EMMA in {root}")
    domain, own = names[name]
    groups, numbers, absent = [], [], {}
    for task, title in {**ERASING, **RETAINING}.items():
        file, keeps = root / domain / f"{task}.json", task in RETAINING
        number = f"{'Retaining' if keeps else 'Erasing'} ability: {task[2:]}"
        if prompts := _read(file).get(own, []) if file.is_file() else []:
            made = tuple(Prompt(text, phrases=(FRAME.sub("", text),) if keeps else ()) for text in prompts)
            groups.append(PromptGroup(task, title, "kept" if keeps else "erased", made))
            numbers.append(Number(number, task))
        else:
            absent[number] = f"{file} has no prompts about {own}"
    return PromptSet("emma", "EMMA", path, name, tuple(groups), tuple(numbers), absent)


def _read(file: Path) -> dict[str, list[str]]:
    value, repeated = json_value(read(file), str(file))
    items = value if isinstance(value, list) else [value]
    faults = list(repeated)
    for i, item in enumerate(items):
        lists = item.values() if isinstance(item, dict) else [None]
        if not all(isinstance(texts, list) and all(isinstance(t, str) for t in texts) for texts in lists):
            faults.append(Fault(str(file), 'is not of the form {"CONCEPT": ["PROMPT", ...]}.', field="item", index=i))
    if faults:
        raise error_from(str(file), faults)
    return {name: [text.strip() for text in texts] for item in items for name, texts in item.items()}


def _squeezed(name: str) -> str:
    return re.sub(r"[\W_]", "", key(name))
