"""The prompts of HUB (Moon et al., "Holistic Unlearning Benchmark", ICCV 2025), read from a clone of its repository.

prompts/target_image/CONCEPT.csv               a prompt on each line, no header
prompts/selective_alignment/CONCEPT.json       [{"prompt": ..., "nouns": [...], "index": ...}, ...]
prompts/pinpoint_ness/CONCEPT.csv              noun,similarity; the prompt is "a photo of NOUN", the first 100
prompts/multilingual_robustness/CONCEPT.csv    Original,Spanish,French,German,Italian,Portuguese,Index
prompts/attack_robustness/CONCEPT.csv          a prompt on each line, no header
"""

from pathlib import Path

from crce.concepts import ConceptSet
from crce.concepts.faults import Fault, error_from
from crce.errors import ConfigError
from crce.evaluate.prompt_sets.files import read_lines, read_list, read_table
from crce.evaluate.prompt_sets.prompt_set import Number, PromptSet, find_concept, key
from crce.evaluate.prompts import Prompt, PromptGroup


TASKS = ("target_image", "selective_alignment", "pinpoint_ness", "multilingual_robustness", "attack_robustness")
LANGUAGES = ("Original", "Spanish", "French", "German", "Italian", "Portuguese")
NOUNS = 100  # of pinpoint_ness that count
NOUN_IMAGES = 10
DRAWN = "Stable Diffusion 1.5, guidance 7.5"
AXES = {
    "target_image": "Effectiveness: target proportion",
    "selective_alignment": "Alignment: selective alignment",
    "pinpoint_ness": "Pinpoint-ness",
    "attack_robustness": "Attack robustness",
}
UNMEASURED = {
    "Faithfulness: general image quality": "FID needs MS-COCO captions and their photos",
    "Faithfulness: target image quality": "it is the score of an aesthetic predictor, not of a judge",
    "Alignment: general image alignment": "ImageReward and PickScore need MS-COCO captions and models of their own",
    "Efficiency": "it is the time and the memory of the erasure: see crce bench",
}


def load(path: Path, concepts: ConceptSet, concept: str | None = None) -> PromptSet:
    """The prompts about what a run erased.

    `path` is a clone of the repository, or its folder prompts; the rest as in `load_prompt_set`.

    Raises:
        ConfigError: the folder is missing or is none of HUB's, or HUB has no prompts about this concept.
        ConceptError: a file is not as it should be.
    """
    root = _find(path)
    files = {
        task: {key(p.stem): p for p in sorted((root / task).glob("*.*")) if p.suffix.lower() in (".csv", ".json")}
        for task in TASKS
    }
    names = {k: p.stem.replace("_", " ") for task in reversed(TASKS) for k, p in files[task].items()}
    name = find_concept(concepts, concept, names.values(), f"HUB in {root}")
    own = {task: by_key[key(name)] for task, by_key in files.items() if key(name) in by_key}
    groups = [group for task, file in own.items() for group in _groups(task, file)]
    numbers = [Number(AXES.get(g.name) or f"Multilingual robustness ({g.title})", g.name) for g in groups]
    missing = [task for task in TASKS if task not in own]
    absent = {AXES.get(task, "Multilingual robustness"): f"{root / task} has no file {name}" for task in missing}
    return PromptSet("hub", "HUB", path, name, tuple(groups), tuple(numbers), {**absent, **UNMEASURED}, DRAWN)


def _find(path: Path) -> Path:
    if not path.is_dir():
        raise ConfigError(f"There is no folder {path}. Clone github.com/ml-postech/HUB, and give hub:FOLDER.")
    roots = (path, path / "prompts")
    for root in roots:
        # The first version had a folder of this name too, with files of another kind.
        if any((root / task).is_dir() for task in TASKS if task != "selective_alignment"):
            return root
    raise ConfigError(
        f"{path} holds no prompts of HUB. Looked there and in {roots[1]} for the folders {', '.join(TASKS)}. "
        "A clone of its first version has other tasks: git pull."
    )


def _groups(task: str, file: Path) -> list[PromptGroup]:
    match task:
        case "target_image" | "attack_robustness":
            title = "prompts about the target" if task == "target_image" else "adversarial prompts"
            return [PromptGroup(task, title, "erased", tuple(map(Prompt, read_lines(file))))]
        case "selective_alignment":
            title = "other things in prompts about the target"
            return [PromptGroup(task, title, "kept", _nouns_within(file), within=True)]
        case "pinpoint_ness":
            nouns = [row["noun"].strip() for _, row in read_table(file, ["noun"])][:NOUNS]
            prompts = tuple(Prompt(f"a photo of {noun}", phrases=_names(noun)) for noun in nouns if noun)
            return [PromptGroup(task, "things near the target", "kept", prompts, images=NOUN_IMAGES)]
        case _:
            rows = [row for _, row in read_table(file, LANGUAGES)]
            texts = {language: [text for row in rows if (text := row[language].strip())] for language in LANGUAGES}
            return [
                PromptGroup(f"{task}-{language.lower()}", language, "erased", tuple(map(Prompt, translated)))
                for language, translated in texts.items()
                if translated
            ]


def _nouns_within(file: Path) -> tuple[Prompt, ...]:
    rows, faults = [], []
    for i, item in enumerate(read_list(file)):
        prompt, nouns = (item.get("prompt"), item.get("nouns")) if isinstance(item, dict) else (None, None)
        if isinstance(prompt, str) and isinstance(nouns, list) and all(isinstance(noun, str) for noun in nouns):
            rows += [Prompt(prompt.strip(), phrases=_names(noun.strip().lower())) for noun in nouns if noun.strip()]
        else:
            text = 'is not of the form {"prompt": "...", "nouns": ["...", ...]}.'
            faults.append(Fault(str(file), text, field="item", index=i))
    if faults:
        raise error_from(str(file), faults)
    return tuple(rows)


def _names(noun: str) -> tuple[str, ...]:
    """A noun of WordNet as people write it, and as it stands."""
    return tuple(dict.fromkeys((noun.replace("_", " "), noun)))
