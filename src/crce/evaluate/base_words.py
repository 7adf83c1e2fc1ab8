"""The judge's words for images of base models, which all runs share: with them no image has to be generated again.

    CACHE/base_words/<settings>.json    words by prompt and seed; <settings> digests weights, sampling and judge

CRCE_BASE_WORDS sets another folder. Those of the bundled models for the atlas come with the package.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crce.demo.model import MODELS, model_path, weights_path
from crce.errors import RunError
from crce.evaluate.model_pair import SamplingPlan
from crce.evaluate.observe import Questions
from crce.files import cache_folder, read_json, text_hash, write_json
from crce.judges.judge import CalibratedJudge
from crce.sampling import ModelState


log = logging.getLogger(__name__)

SHIPPED = weights_path() / "base_words"  # made by tools/demo/base_words.py
SIDES = ("base", "probe")  # of a report's words, those that the base model's images are called


class BaseWords:
    """The words of one judge for images of one base model, all sampled in the same way.

    Those of a judge that learns from the images, or for a model without a revision, are not kept.
    """

    def __init__(self, questions: Sequence[Questions], plan: SamplingPlan, state: ModelState) -> None:
        self._questions, self._plan, self._state = questions, plan, state
        judge = questions[0].judge
        # The revision of a bundled model is that of its denoiser alone.
        model = model_path(state.model).name if state.model in MODELS else state.model
        sampling = {"steps": plan.steps, "guidance": plan.guidance, "solver": plan.solver}
        settings = {**state.as_json(), "model": model, **sampling, "judge": questions[0].describe()}
        name = f"{text_hash(json.dumps(settings, sort_keys=True))[:16]}.json"
        self._path = Path(os.environ.get("CRCE_BASE_WORDS") or cache_folder() / "base_words") / name
        self._kept = judge is not None and state.revision is not None and not isinstance(judge, CalibratedJudge)
        self._words = _read(SHIPPED / name) | _read(self._path) if self._kept else {}

    def recall(self) -> SamplingPlan:
        """Answer the questions whose words are known; the plan, without the images that nobody needs then."""
        texts, lacking = set(), set()
        for own in self._questions:
            for prompt in own.prompts:
                texts.add(prompt.text)
                places = [own.place(side, prompt) for side in SIDES]
                words = [[self._words.get(image) for image in self._images(*place)] for place in places]
                if any(None in said for said in words):
                    lacking.add(prompt.text)
                else:
                    own.words |= zip(places, words, strict=True)
        return replace(self._plan, known=frozenset(texts - lacking))

    def save(self) -> None:
        """Keep the words that the judge has said, beside those that other processes have written meanwhile."""
        new: dict[str, str] = {}
        for own in self._questions if self._kept else ():
            for place, words in own.words.items():
                said = zip(self._images(*place), words, strict=True) if place[0] in SIDES else ()
                new |= {image: word for image, word in said if word is not None and image not in self._words}
        if not new:
            return
        self._words |= new
        try:
            write_json(self._path, _read(self._path) | new)
        except RunError as error:
            log.warning("%s The next run generates the images of the base model again.", error)

    def _images(self, side: str, text: str, asked: str | None) -> list[str]:
        keys = self._plan.keys(text, self._state, probing=side == "probe")
        return [f"{key.prompt}\t{key.seed}\t{asked or ''}" for key in keys]


def _read(path: Path) -> dict[str, str]:
    try:
        return read_json(path, dict[str, str], "It is made again.") if path.exists() else {}
    except RunError as error:
        log.warning("%s", error)
        return {}
