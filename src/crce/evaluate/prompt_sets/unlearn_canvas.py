"""The prompts of UnlearnCanvas (Zhang et al., arXiv 2402.11846): every object in every style, five images of each.

There is no file of prompts. They are made from two lists, which are read from constants/const.py of the repository
(`theme_available`, `class_available`), or from the folders of the dataset (STYLE/OBJECT/1.jpg). That file is parsed,
never run.

    UA     share of the images that were asked for the target and are not classified as it
    IRA    of the others, share classified as what was asked for, within the domain of the target (styles or objects)
    CRA    the same in the other domain
"""

import ast
from pathlib import Path
from typing import Literal

from crce.concepts import ConceptSet
from crce.concepts.faults import Fault, error_from
from crce.errors import ConfigError
from crce.evaluate.prompt_sets.files import read
from crce.evaluate.prompt_sets.prompt_set import Number, PromptSet, find_concept
from crce.evaluate.prompts import Domain, Prompt, PromptGroup


TEMPLATE = "A {object} image in {style} style."
SEEDS = (188, 288, 588, 688, 888)
CONSTANTS = (
    "const.py",
    "constants/const.py",
    "evaluation/constants/const.py",
    "machine_unlearning/evaluation/constants/const.py",
)
STYLES, OBJECTS = "theme_available", "class_available"
PHOTOS = ("Seed_Images", "Seed_Image")  # the photos that the styles were painted from, a style like the others
NUMBERS = (Number("UA", "unlearned", complement=True), Number("IRA", "in_domain"), Number("CRA", "cross_domain"))
UNMEASURED = {
    "FID": "it needs the pictures of the dataset",
    "Time, memory, storage": "they are those of the erasure: see crce bench",
}
DRAWN = "its own fine-tuned Stable Diffusion 1.5, 100 steps, guidance 9, two ViT-L classifiers"


def load(path: Path, concepts: ConceptSet, concept: str | None = None) -> PromptSet:
    """The prompts, grouped around what a run erased, which is a style or an object.

    `path` is a clone of the repository, its const.py, or the folder of the dataset; the rest as in `load_prompt_set`.

    Raises:
        ConfigError: the path is missing or is none of UnlearnCanvas's, or it has no such concept.
        ConceptError: const.py does not hold the two lists.
    """
    styles, objects = _read_lists(path)
    name = find_concept(concepts, concept, (*styles, *objects), "UnlearnCanvas")
    of_style = name in styles
    domains = {
        "style": Domain("style", tuple(_names(s, "style") for s in styles if s != name)),
        "object": Domain("object", tuple(_names(o, "object") for o in objects if o != name)),
    }
    own, other = ("style", "object") if of_style else ("object", "style")
    unlearned, in_domain, cross_domain = [], [], []
    for style in styles:
        for thing in objects:
            text = TEMPLATE.format(object=thing, style=style.replace("_", " "))
            if name in (style, thing):
                unlearned.append(Prompt(text, seeds=SEEDS))
                continue
            asked = {"style": _names(style, "style"), "object": _names(thing, "object")}
            in_domain.append(Prompt(text, phrases=asked[own], seeds=SEEDS))
            cross_domain.append(Prompt(text, phrases=asked[other], seeds=SEEDS))
    count = len(SEEDS)
    groups = [PromptGroup("unlearned", f"prompts for {name}", "erased", tuple(unlearned), 0, count, domains[own])]
    if in_domain:
        groups += [
            PromptGroup("in_domain", f"other {own}s", "kept", tuple(in_domain), 0, count, domains[own]),
            PromptGroup("cross_domain", f"{other}s of these", "kept", tuple(cross_domain), 0, count, domains[other]),
        ]
    numbers = NUMBERS[: len(groups)]
    missing = {n.name: f"{path} has no {own} but {name}" for n in NUMBERS[len(groups) :]} | UNMEASURED
    return PromptSet("unlearn-canvas", "UnlearnCanvas", path, name, tuple(groups), numbers, missing, DRAWN)


def _read_lists(path: Path) -> tuple[list[str], list[str]]:
    if not path.exists():
        raise ConfigError(
            f"There is no {path}. Clone github.com/OPTML-Group/UnlearnCanvas, and give unlearn-canvas:FOLDER."
        )
    for file in (path, *(path / place for place in CONSTANTS)):
        if file.is_file():
            return _parse(file)
    folders = {d.name: {o.name for o in _folders(d)} for d in _folders(path)}
    styles = [name for name, things in folders.items() if things]
    common = set.intersection(*(folders[name] for name in styles)) if styles else set()
    if not common or not (len(styles) > 1 or styles[0] in PHOTOS):
        raise ConfigError(
            f"{path} is no folder of UnlearnCanvas. Looked for {', '.join(CONSTANTS)} with the lists {STYLES} and "
            f"{OBJECTS}, and for folders STYLE/OBJECT of the dataset with the same objects in every style."
        )
    return styles, sorted(common)


def _folders(path: Path) -> list[Path]:
    return sorted(d for d in path.iterdir() if d.is_dir() and not d.name.startswith("."))


def _parse(path: Path) -> tuple[list[str], list[str]]:
    """The two lists that a Python file assigns, without running it."""
    found: dict[str, list[str]] = {}
    try:
        tree = ast.parse(read(path))
    except SyntaxError as error:
        raise error_from(str(path), [Fault(str(path), f"is no Python: {error.msg}.", line=error.lineno)]) from None
    for node in tree.body:
        names = [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
        for name in {STYLES, OBJECTS}.intersection(names):
            try:
                value = ast.literal_eval(node.value)  # type: ignore[attr-defined]  # an ast.Assign, see above
            except ValueError:
                value = None
            if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                raise error_from(str(path), [Fault(str(path), f"{name} is no list of strings.", line=node.lineno)])
            found[name] = list(dict.fromkeys(value))
    if missing := [name for name in (STYLES, OBJECTS) if not found.get(name)]:
        raise error_from(str(path), [Fault(str(path), f"assigns no list {missing[0]}, which holds the names.")])
    return found[STYLES], found[OBJECTS]


def _names(name: str, kind: Literal["style", "object"]) -> tuple[str, ...]:
    """How a judge may know a style or an object."""
    if name in PHOTOS:
        return ("photo", name)
    spaced = name.replace("_", " ")
    return tuple(dict.fromkeys((spaced if kind == "style" else spaced.lower(), name)))
