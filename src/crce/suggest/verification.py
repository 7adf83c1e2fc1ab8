"""A second question about every candidate to the language model, which lowers the certainty of those it contradicts.

The phrases are shown without their side, in alphabetical order, and the model says of each whether an image of it is
always, sometimes or never an image of the target, or that the phrase is nonsense. The stated certainty is multiplied
by the agreement: for a coref always 1, sometimes 1/2, never 0; for a retain the other way round; nonsense is 0 on both
sides. Among them are control phrases whose answer is known (the target itself, things far from it, a made-up word).
The share of controls answered right multiplies every certainty too, and a model that gets half of them wrong or more
is not believed at all. "Never" for the made-up word counts as right: it is true of its images, and the model's answers
about meaningful phrases are no worse for it.
"""

import logging
import random
from collections.abc import Sequence
from functools import partial

from crce.concepts.concept_set import fold
from crce.demo.embedding import load_embedder
from crce.suggest.candidates import Candidate, Request, Side
from crce.suggest.llm import LLMSuggester, UnreadableAnswer
from crce.suggest.prompts import verify_messages
from crce.suggest.record import Verified
from crce.suggest.schemas import Judgement, Verdict, judgements_schema, parse_judgements


logger = logging.getLogger(__name__)

UNANSWERED = "unanswered"
_AGREEMENT: dict[Side, dict[Verdict, float]] = {
    "coref": {"always": 1.0, "sometimes": 0.5, "never": 0.0, "nonsense": 0.0},
    "retain": {"always": 0.0, "sometimes": 0.5, "never": 1.0, "nonsense": 0.0},
}
_BATCH = 20  # phrases of one question; small models lose count in longer ones
_FAR = ("paper clip", "volcano", "traffic light", "bagpipes", "wedding cake", "oil rig", "snowflake", "toothbrush")
_SYLLABLES = ("flu", "rb", "qz", "ont", "vu", "gri", "xel", "mop", "zha", "ket")


def verify(candidates: Sequence[Candidate], request: Request, suggester: LLMSuggester) -> list[Verified]:
    """Ask the language model of `suggester` a second time about each candidate.

    Returns:
        One answer for each candidate, in the same order. An answer that can't be read leaves its phrases unanswered;
        they keep their certainty, and the reason says so.

    Raises:
        SuggestError: the model can't be reached or refuses.
    """
    # without the side and in alphabetical order, neither of which gives the wanted answer away
    controls = _controls(candidates, request, suggester.seed)
    named = {fold(text): text for text in controls} | {fold(c.text): c.text for c in candidates}
    phrases = sorted(named.items())
    judgements: dict[str, Judgement] = {}
    for start in range(0, len(phrases), _BATCH):
        batch = phrases[start : start + _BATCH]
        messages = verify_messages(request, [text for _, text in batch], suggester.prompts)
        schema, parse = judgements_schema(len(batch)), partial(parse_judgements, count=len(batch))
        try:
            numbered = suggester.ask("verify", request.target, messages, schema, parse, 200 + 60 * len(batch))
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
            "%s got %d of %d control phrases wrong (is an image of %s one of %r?), so its answers count %.0f %%.%s",
            *(suggester.chat.model, len(wrong), len(answers), ", of ".join(wrong), request.target, 100 * trust),
            " Use a larger model, or --no-verify." if not trust else "",
        )
    return [_verified(c, judgements.get(fold(c.text)), request.target, trust) for c in candidates]


def _controls(candidates: Sequence[Candidate], request: Request, seed: int) -> dict[str, tuple[Verdict, ...]]:
    """Phrases whose answer is known, with the right answers to each."""
    about = {word for text in (request.target, *(c.text for c in candidates)) for word in fold(text).split()}
    far = [text for text in _FAR if not about & set(text.split())]
    # by meaning too: of the target "food", a wedding cake shares no word and is no control
    meant = [request.target, *([request.sense] if request.sense else [])]
    nearness = dict(zip(far, load_embedder().similarity(far, meant).max(axis=1).tolist(), strict=True)) if far else {}
    far.sort(key=lambda text: (nearness[text], text))
    made_up = "".join(random.Random(f"{seed} {request.target}").sample(_SYLLABLES, 3))
    known: dict[str, tuple[Verdict, ...]] = {request.target: ("always",), made_up: ("nonsense", "never")}
    return known | dict.fromkeys(far[:2], ("never",))


def _verified(candidate: Candidate, judgement: Judgement | None, target: str, trust: float) -> Verified:
    agreement, answer, reason = 1.0, UNANSWERED, "not verified, the model gave no answer"
    if judgement is not None:
        agreement, answer = _AGREEMENT[candidate.side][judgement.answer], judgement.answer
        said = f"an image of it is {answer} one of {target}"
        reason = "it has no meaning that could be depicted" if answer == "nonsense" else said
        reason += f" ({judgement.reason})" if judgement.reason else ""
        if trust < 1:
            reason += f"; the model fails control phrases and is believed {100 * trust:.0f} %"
    text, side, stated = candidate.text, candidate.side, candidate.certainty
    certainty = round(round(stated * agreement * trust, 4), 2)
    return Verified(text=text, side=side, stated=stated, certainty=certainty, answer=answer, reason=reason)
