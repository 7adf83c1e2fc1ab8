"""A hundred deletions in one register of the bundled model: their cost, whether their order matters, what is kept.

    python benchmarks/speed/deletions.py

writes deletions.json beside this file; what it holds already is kept. The atlas entries that the model can draw and
nouns of which the lexicon knows corefs are deleted one by one, twice, in two orders. `kept` are the ratios of images
that the judge recognises, after all deletions over before, of what the model can draw and no concept set names
(unrelated), of what one of them retains, and of what is deleted, which should be near 0. SETTINGS are tried with all
concepts in one call. Seconds are of the processor, as other programs may run meanwhile.
"""

from __future__ import annotations

import json
import platform
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from crce import demo
from crce.backbones import load_backbone
from crce.concepts import ConceptSet, atlas
from crce.concepts.concept_set import fold
from crce.files import write_json
from crce.judges import load_judge
from crce.sampling import draw
from crce.suggest.resolve import resolve_concepts
from crce.training import apply_adapter, load_config
from crce.training.register import RegisterEvent, change_register


NOUNS = """accordion anchor armadillo avocado axe backpack badger balcony barn basket bell bench blanket bottle bridge
broccoli broom bucket camera candle cannon carpet cello chair chicken chimney clarinet clock coat coconut cup curtain
desk donkey door drum envelope falcon fence flute fork garlic gorilla hammer harp hat helmet jacket jar kangaroo
kettle""".split()
SETTINGS: tuple[dict[str, Any], ...] = ({}, {"everyday": 1000.0})
SEED, IMAGES = 1000, 1
FILE = Path(__file__).with_suffix(".json")


def main() -> None:
    result = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    clock = time.process_time()
    backbone = load_backbone("demo", device="cpu", dtype="float32")
    loading = time.process_time() - clock
    drawn = {fold(concept["name"]) for concept in demo.world()["concepts"]}
    sets = [c for c in atlas().values() if fold(c.target) in drawn]
    sets += [each.concepts for each in resolve_concepts(NOUNS)]
    groups = named_groups(sets, drawn)
    result |= {"deletions": len(sets), "phrases": {name: len(own) for name, own in groups.items()}, "images": IMAGES}
    if "recognised_before" not in result:
        result["recognised_before"] = recognised(backbone, groups)
    base = result["recognised_before"]
    rows = result.setdefault("settings", [])
    for settings in SETTINGS[len(rows) :]:
        with tempfile.TemporaryDirectory() as folder:
            config = load_config(None, {"method": "uce", **settings})
            run = change_register(Path(folder), deletions(sets), backbone, config)
            adapter = apply_adapter(backbone, run.adapter)
            after = recognised(backbone, groups)
            adapter.close()
        rows.append({"method": "uce", **settings, "kept": {n: round(after[n] / base[n], 4) for n in groups}})
        print(rows[-1], flush=True)
        write_json(FILE, result)
    if "orders" not in result:
        orders = [sorted(sets, key=lambda c: fold(c.target)), random.Random(0).sample(sets, len(sets))]
        made = [one_by_one(backbone, order) for order in orders]
        result["orders"] = [seconds for seconds, _ in made]
        result["equal_bit_for_bit"] = made[0][1] == made[1][1]
        result |= {"seconds_loading": round(loading, 2), "machine": platform.processor() or platform.machine()}
        result |= {"threads": torch.get_num_threads()}
        write_json(FILE, result)
    print(result)


def deletions(sets: list[ConceptSet]) -> list[RegisterEvent]:
    return [RegisterEvent(action="delete", target=c.target, concepts=c, by="benchmark") for c in sets]


def named_groups(sets: list[ConceptSet], drawn: set[str]) -> dict[str, list[str]]:
    """What the model can draw: names that no set names, that some retain, and that go."""
    gone = {fold(text) for c in sets for text in (c.target, *(r.text for r in c.corefs))}
    kept = {fold(r.text) for c in sets for r in c.retains}
    return {
        "unrelated": sorted(drawn - gone - kept),
        "retained": sorted(drawn & kept - gone),
        "deleted": sorted(drawn & {fold(c.target) for c in sets}),
    }


def recognised(backbone, groups: dict[str, list[str]]) -> dict[str, int]:
    """By group, the images that the judge recognises as what was asked for."""
    judge, found = load_judge("emoji"), {}
    for name, phrases in groups.items():
        prompts = [phrase for phrase in phrases for _ in range(IMAGES)]
        images = draw(
            backbone.pipe, prompts, [SEED + k for _ in phrases for k in range(IMAGES)], steps=20, guidance=4.0
        )
        words = [judge.classes[k] for k in judge.probs(images).argmax(1).tolist()]
        found[name] = sum(word == judge.class_of(prompt) for word, prompt in zip(words, prompts, strict=True))
    return found


def one_by_one(backbone, order: list[ConceptSet]) -> tuple[dict[str, float], bytes]:
    """Seconds of each deletion, and the bytes of the last weights."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for concepts in order:
            clock = time.process_time()
            run = change_register(Path(folder), deletions([concepts]), backbone, load_config("uce"))
            seconds.append(time.process_time() - clock)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        content = run.adapter.read_bytes()
    last = seconds[-10:]
    found = {
        "first": seconds[0],
        "median": median(seconds),
        "most": max(seconds[1:]),
        "last_ten": sum(last) / len(last),
    }
    return {name: round(value, 3) for name, value in found.items()} | {"folder_mb": round(size / 2**20, 1)}, content


if __name__ == "__main__":
    main()
