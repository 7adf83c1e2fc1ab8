"""Put the judge's words for images of the bundled models into the package: `python tools/demo/base_words.py`.

A report compares the erased model with the base model, whose images are the same in every run. For the concept sets of
the atlas that the judge knows, their words are shipped, so that only images that a page shows are generated. They are
named by the digest of the weights, the sampling and the judge: after a change of one of these the old file is of no
use, and this has to be run again. What is there already is kept.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from crce.backbones import load_backbone
from crce.backbones.defaults import defaults_of
from crce.concepts.library import atlas
from crce.demo.model import MODELS
from crce.evaluate.base_words import SHIPPED, SIDES, BaseWords
from crce.evaluate.observe import concept_set_questions
from crce.evaluate.settings import ConceptSetSettings
from crce.judges import load_judge
from crce.judges.judge import name_pictures
from crce.sampling import ImageCache, ModelState
from crce.training import Erasure, load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    args = parser.parse_args()
    os.environ["CRCE_BASE_WORDS"] = str(args.out)
    for name in args.models:
        backbone = load_backbone(name, device="cpu")
        state = ModelState("base", name, backbone.revision, "float32")
        info = {"model": name, "revision": backbone.revision, "sampling": defaults_of(backbone).as_json()}
        for concepts in atlas().values():
            if load_judge().class_of(concepts.target) is None:
                continue
            run = Erasure(Path(), (concepts,), load_config(kind=concepts.kind, model=name), info)
            (questions,), plan, _ = concept_set_questions(run, ConceptSetSettings())
            words = BaseWords([questions], plan, state)
            known, images = words.recall().known, ImageCache()
            for prompt in questions.prompts:
                for side in SIDES if prompt.text not in known else ():
                    keys = plan.keys(prompt.text, state, probing=side == "probe")
                    images.fill(backbone.pipe, images.missing(keys))
                    place = questions.place(side, prompt)
                    drawn = [images.get(key) for key in keys]
                    questions.words[place] = name_pictures(questions.judge, drawn, place[2], questions.judge.threshold)
            words.save()
            print(name, concepts.target, len(questions.prompts), "prompts,", len(images), "new images", flush=True)


if __name__ == "__main__":
    main()
