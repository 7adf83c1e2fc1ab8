"""The prompts of a concept set, with unrelated ones added."""

from collections.abc import Sequence

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.evaluate.prompts import ERASING, NO_JUDGE, Prompt, PromptGroup, concept_group, no_class, spread
from crce.judges import Judge
from crce.judges.concept_classes import everyday


UNRELATED_PROMPTS = 6


class OtherSets:
    """The other sets of a run that erases several targets, and their effect on phrases of this one.

    With `crce` their corefs and retains were trained too.
    """

    def __init__(self, sets: Sequence[ConceptSet], judge: Judge | None, *, crce: bool = True) -> None:
        self.phrases = [text for c in sets for text in _phrases(c)]
        self._erased: dict[str, str] = {}  # by folded phrase, as are the trained ones: the target it goes with
        self._trained: dict[str, str] = {}
        for c in sets:
            for text in (c.target, *(r.text for r in c.corefs)):
                self._erased.setdefault(fold(text), c.target)
            for text in (c.target, *(r.text for r in c.train_corefs + c.train_retains if crce)):
                self._trained.setdefault(fold(text), c.target)
        self._judge = judge
        self._classes = {judge.class_of(c.target): c.target for c in sets} if judge else {}

    def left_out(self, text: str, own_class: str | None, target_class: str | None) -> str | None:
        """Why a phrase that one set keeps can't be scored, by the judge's classes of it and of the set's target."""
        if erasing := self._erased.get(fold(text)):
            another = "" if fold(text) == fold(erasing) else f', as another name of "{erasing}"'
            return f"erased by this run too{another}"
        if own_class is None:
            return no_class(text, self._judge)
        same = f'the judge has one class, "{own_class}", for it and for'
        if own_class == target_class:
            return f"{same} the target"
        other = self._classes.get(own_class)
        return f'{same} "{other}", which this run erases too' if other else None

    def trained(self, text: str) -> str | None:
        """Why a phrase that one set holds out was seen in training all the same; None if it wasn't."""
        target = self._trained.get(fold(text))
        return None if target is None else f'trained by this run, with "{target}"'


def make_groups(
    concepts: ConceptSet,
    judge: Judge | None,
    limit: int | None = 10,
    others: Sequence[ConceptSet] = (),
    *,
    crce: bool = True,
    common: Sequence[str] = (),
) -> list[PromptGroup]:
    """Group the phrases of a concept set, with unrelated ones added.

    Images of the target and its corefs are recognised when the judge sees the target's class, those of other
    phrases when it sees the phrase's own class. What another set of the run erases is left out of what should be
    kept, and what another set trains is left out of what was held out; without `crce`, corefs and retains were not
    trained. Without a judge no prompt can be scored.

    A group has at most `limit` phrases, None takes all; from longer lists every k-th is taken, so that all certainties
    are met. `common` are unrelated phrases that every judge of this model is shown, as long as it knows half of them.

    Returns:
        Six groups in the order of `ERASING + KEEPING`; some may be empty.
    """
    target_class = judge.class_of(concepts.target) if judge else None
    elsewhere = OtherSets(others, judge, crce=crce)
    relatives = {
        "coref": concepts.train_corefs,
        "coref_held_out": concepts.held_out_corefs,
        "retain": concepts.train_retains,
        "retain_held_out": concepts.held_out_retains,
    }
    unknown = None if target_class else no_class(concepts.target, judge)
    groups = [concept_group("target", [Prompt(concepts.target, None, target_class, unknown)])]
    for name, related in relatives.items():
        prompts = []
        for r in spread(related, limit):
            own_class, reason = target_class, unknown
            if name not in ERASING:
                own_class = judge.class_of(r.text) if judge else None
                reason = elsewhere.left_out(r.text, own_class, target_class)
            if name.endswith("held_out") and reason in (None, NO_JUDGE):
                reason = elsewhere.trained(r.text) or reason
            prompts.append(Prompt(r.text, r.certainty, None if reason else own_class, reason))
        groups.append(concept_group(name, prompts, len(related) - len(prompts)))
    unrelated = _unrelated([*_phrases(concepts), *elsewhere.phrases], judge, common)
    return [*groups, concept_group("unrelated", unrelated)]


def _phrases(concepts: ConceptSet) -> list[str]:
    return [concepts.target, *(r.text for r in concepts.corefs + concepts.retains)]


def common_unrelated(concepts: ConceptSet, others: Sequence[ConceptSet], own: Judge | None) -> list[str]:
    """Phrases that have nothing to do with the sets of a run, the same for every judge of a model.

    They are classes of the model's own judge, which knows what the model can generate, if it has one.
    """
    phrases = [text for c in (concepts, *others) for text in _phrases(c)]
    return [prompt.text for prompt in _unrelated(phrases, own)]


def _unrelated(phrases: Sequence[str], judge: Judge | None, common: Sequence[str] = ()) -> tuple[Prompt, ...]:
    if judge is None:
        return tuple(Prompt(text, left_out=NO_JUDGE) for text in common or everyday(phrases)[:UNRELATED_PROMPTS])
    near = {judge.class_of(phrase) for phrase in phrases} | {None}
    known = [(text, judge.class_of(text)) for text in common]
    if common and 2 * sum(own not in near for _, own in known) >= len(common):
        prompts = []
        for text, own in known:
            reason = None
            if own is None:
                reason = no_class(text, judge)
            elif own in near:
                reason = f'the judge has one class, "{own}", for it and for a phrase of the set'
            prompts.append(Prompt(text, expected=None if reason else own, left_out=reason))
        return tuple(prompts)
    far = [c for c in judge.classes if c not in near and judge.class_of(c) == c]
    return tuple(Prompt(c, expected=c) for c in spread(far, UNRELATED_PROMPTS))
