"""A second look at candidates by a language model, which turns into their certainty.

Two methods:
- question: the phrases are shown without their side, in alphabetical order, and the model says of each whether a
  picture of it is always, sometimes or never a picture of the target, or that the phrase is nonsense. The stated
  certainty is multiplied by the agreement: for a coref always 1, sometimes 1/2, never 0; for a retain the other way
  round; nonsense is 0 on both sides. Control phrases whose answer is known (the target itself, things far from it, a
  made-up word) stand among them. The share of controls answered right multiplies every certainty too: a model that
  gets half of them wrong or more is not believed at all. "Never" for the made-up word counts as right too: it is
  true of its pictures, and what such a model says of phrases that mean something is as good as another's.
- consistency: the question for corefs and retains is asked several times at a temperature, and the stated certainty is
  multiplied by the share of answers that hold the phrase on the same side.

A second look only ever lowers a certainty. At 0 the phrase is contradicted, and `Verified.dropped`.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from crce.concepts.concept_set import fold
from crce.errors import SuggestError
from crce.llm import Chat
from crce.suggest.candidates import Candidate, Request, Side
from crce.suggest.embedding import load_embedder
from crce.suggest.llm import ask_for_candidates
from crce.suggest.phrases import key
from crce.suggest.prompts import verify_messages
from crce.suggest.schemas import Judgement, Verdict, judgements_schema, parse_judgements
from crce.suggest.structured_query import UnreadableAnswer, ask, question
from crce.suggest.transcript import Exchange


logger = logging.getLogger(__name__)

Method = Literal["question", "consistency"]
METHODS: tuple[Method, ...] = get_args(Method)

UNANSWERED = "unanswered"
_AGREEMENT: dict[Side, dict[Verdict, float]] = {
    "coref": {"always": 1.0, "sometimes": 0.5, "never": 0.0, "nonsense": 0.0},
    "retain": {"always": 0.0, "sometimes": 0.5, "never": 1.0, "nonsense": 0.0},
}
_BATCH = 20  # phrases of one question; small models lose count in longer ones
_TEMPERATURE = 0.8
_FAR = ("paper clip", "volcano", "traffic light", "bagpipes", "wedding cake", "oil rig", "snowflake", "toothbrush")
_SYLLABLES = ("flu", "rb", "qz", "ont", "vu", "gri", "xel", "mop", "zha", "ket")


@dataclasses.dataclass(frozen=True)
class Verified:
    """A candidate after the second look.

    Attributes:
        candidate: as it was proposed.
        certainty: the stated certainty times the agreement and the share of controls answered right; without the
            agreement where there was no answer.
        answer: "always", "sometimes", "never", "nonsense", "unanswered", or "4 of 5" (answers that hold the phrase).
        reason: one line for the person who reviews it.
    """

    candidate: Candidate
    certainty: float
    answer: str
    reason: str

    @property
    def dropped(self) -> bool:
        """Whether the second look contradicts the candidate."""
        return self.certainty == 0.0


def verify(
    candidates: Sequence[Candidate],
    request: Request,
    chat: Chat,
    *,
    method: Method = "question",
    samples: int = 5,
    prompts: Path | str | None = None,
    exchanges: list[Exchange] | None = None,
    seed: int = 0,
) -> list[Verified]:
    """Look at each candidate a second time.

    Args:
        candidates: what was proposed, by whomever.
        request: what it was proposed for.
        chat: the language model that is asked.
        method: see the module.
        samples: answers of the method consistency.
        prompts: folder of own prompts.
        exchanges: where every question and answer is appended.
        seed: of the model's answers; sample i has seed + i.

    Returns:
        One result for each candidate, in the same order.

    Raises:
        SuggestError: an unknown method, too few samples, or the model can't be reached or refuses. An answer that
            can't be read leaves its phrases unanswered; they keep their certainty, and the reason says so.
    """
    exchanges = [] if exchanges is None else exchanges
    if method == "question":
        return _by_question(candidates, request, chat, prompts, exchanges, seed)
    if method == "consistency":
        return _by_consistency(candidates, request, chat, samples, prompts, exchanges, seed)
    raise SuggestError(f"The verification method {method!r} is not known. Use one of: {', '.join(METHODS)}.")


def _by_question(
    candidates: Sequence[Candidate],
    request: Request,
    chat: Chat,
    prompts: Path | str | None,
    exchanges: list[Exchange],
    seed: int,
) -> list[Verified]:
    if not candidates:
        return []
    # without the side and in alphabetical order, neither of which gives the wanted answer away
    controls = _controls(candidates, request, seed)
    named = {fold(text): text for text in controls} | {fold(c.text): c.text for c in candidates}
    phrases = sorted(named.items())
    judgements: dict[str, Judgement] = {}
    for start in range(0, len(phrases), _BATCH):
        batch = phrases[start : start + _BATCH]
        try:
            numbered = ask(
                chat,
                question(chat, partial(verify_messages, request, [text for _, text in batch]), prompts),
                judgements_schema(len(batch)),
                partial(parse_judgements, count=len(batch)),
                kind="verify",
                about=request.target,
                exchanges=exchanges,
                max_tokens=200 + 60 * len(batch),
                seed=seed,
            )
        except UnreadableAnswer as error:  # the proposals are still worth having, each marked as not verified
            logger.warning("%s Its phrases stay as they were proposed.", error)
            continue
        judgements |= {batch[number - 1][0]: judgement for number, judgement in numbered.items()}
    answers = {text: judgements[fold(text)].answer for text in controls if fold(text) in judgements}
    wrong = [f"{text!r} {answer}" for text, answer in answers.items() if answer not in controls[text]]
    right = 1 - len(wrong) / len(answers) if answers else 1.0
    trust = right if right > 0.5 else 0.0
    if wrong:
        logger.warning(
            "%s got %d of %d control phrases wrong (a picture of %s is one of %r?), so its answers count %.0f %%.%s",
            *(chat.model, len(wrong), len(answers), ", of ".join(wrong), request.target, 100 * trust),
            " Use a larger model, or --no-verify." if not trust else "",
        )
    return [_judged(candidate, judgements.get(fold(candidate.text)), request, trust) for candidate in candidates]


def _controls(candidates: Sequence[Candidate], request: Request, seed: int) -> dict[str, tuple[Verdict, ...]]:
    """Phrases whose answer is known, with what is right for each."""
    about = {word for text in (request.target, *(c.text for c in candidates)) for word in fold(text).split()}
    far = [text for text in _FAR if not about & set(text.split())]
    # by meaning too: of the target "food", a wedding cake shares no word and is no control
    meant = [request.target, *([request.sense] if request.sense else [])]
    nearness = dict(zip(far, load_embedder().similarity(far, meant).max(axis=1).tolist(), strict=True)) if far else {}
    far.sort(key=lambda text: (nearness[text], text))
    made_up = "".join(random.Random(f"{seed} {request.target}").sample(_SYLLABLES, 3))
    known: dict[str, tuple[Verdict, ...]] = {request.target: ("always",), made_up: ("nonsense", "never")}
    return known | dict.fromkeys(far[:2], ("never",))


def _judged(candidate: Candidate, judgement: Judgement | None, request: Request, trust: float) -> Verified:
    if judgement is None:
        reason = "not verified, the model gave no answer"
        return Verified(candidate, round(candidate.certainty * trust, 4), UNANSWERED, reason)
    agreement = _AGREEMENT[candidate.side][judgement.answer]
    if judgement.answer == "nonsense":
        reason = "it means nothing that could be drawn"
    else:
        reason = f"a picture of it is {judgement.answer} one of {request.target}"
    if judgement.reason:
        reason += f" ({judgement.reason})"
    if trust < 1:
        reason += f"; the model fails control phrases and is believed {100 * trust:.0f} %"
    return Verified(candidate, round(candidate.certainty * agreement * trust, 4), judgement.answer, reason)


def _by_consistency(
    candidates: Sequence[Candidate],
    request: Request,
    chat: Chat,
    samples: int,
    prompts: Path | str | None,
    exchanges: list[Exchange],
    seed: int,
) -> list[Verified]:
    if samples < 2:
        raise SuggestError(f"samples is {samples}. Use 2 or more: a single answer can't disagree with itself.")
    held: list[set[tuple[str, str]]] = []
    for i in range(samples):
        proposed = ask_for_candidates(
            chat, request, prompts, exchanges, kind="verify", temperature=_TEMPERATURE, seed=seed + i
        )
        held.append({(c.side, key(c.text)) for c in proposed})
    verified = []
    for candidate in candidates:
        phrase = (candidate.side, key(candidate.text))
        count = sum(phrase in sample for sample in held)
        certainty = round(candidate.certainty * count / samples, 4)
        reason = f"proposed as a {candidate.side} in {count} of {samples} answers"
        verified.append(Verified(candidate, certainty, f"{count} of {samples}", reason))
    return verified
