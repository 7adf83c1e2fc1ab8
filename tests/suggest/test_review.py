"""A person's review as pure operations."""

from __future__ import annotations

import pytest

from crce.concepts import ConceptSet, Related
from crce.errors import ConceptError, SuggestError
from crce.suggest.candidates import Candidate
from crce.suggest.memory import Decision, Memory
from crce.suggest.review import Review


@pytest.fixture
def concepts() -> ConceptSet:
    return ConceptSet(
        target="cat",
        corefs=(
            Related("kitty", 1.0, "wordnet"),
            Related("tabby", 0.6, "wordnet"),
            Related("lynx", 0.4, "wordnet"),
            Related("kitten", 0.8, "wordnet", held_out=True),
        ),
        retains=(Related("dog", 0.8, "wordnet"), Related("tiger", 0.6, "wordnet")),
    )


@pytest.fixture
def review(concepts: ConceptSet) -> Review:
    return Review.start(concepts)


def sides(review: Review) -> tuple[list[str], list[str]]:
    concepts = review.concepts
    return [r.text for r in concepts.corefs], [r.text for r in concepts.retains]


def answers(review: Review) -> set[tuple[str, str, bool, str]]:
    return {(d.side, d.text, d.accepted, d.source) for d in review.decisions()}


def test_a_fresh_review_is_the_set_itself_and_decides_nothing(review, concepts):
    assert review.concepts == concepts
    assert [e.number for e in review.entries] == [1, 2, 3, 4, 5, 6]
    assert len(review.open) == 6
    assert review.decisions() == []


def test_operations_leave_the_review_they_start_from_as_it_was(review, concepts):
    review.reject(1).move(5).edit(2, "tabby cat").set_certainty(6, 0.1).hold_out(2).train(4).add("coref", "moggy")
    assert review == Review.start(concepts)


def test_reject_takes_out_and_accept_brings_back(review):
    rejected = review.reject(1, 3)
    assert sides(rejected) == (["tabby", "kitten"], ["dog", "tiger"])
    assert answers(rejected) == {("coref", "kitty", False, "wordnet"), ("coref", "lynx", False, "wordnet")}
    back = rejected.accept(3)
    assert sides(back)[0] == ["tabby", "lynx", "kitten"]
    assert ("coref", "lynx", True, "wordnet") in answers(back)
    assert ("coref", "lynx", False, "wordnet") not in answers(back)


def test_move_changes_the_side_and_says_who_wants_it_there(review):
    moved = review.move(3)
    assert sides(moved) == (["kitty", "tabby", "kitten"], ["lynx", "dog", "tiger"])
    lynx = next(r for r in moved.concepts.retains if r.text == "lynx")
    assert (lynx.certainty, lynx.source) == (0.4, "user")
    assert answers(moved) == {("coref", "lynx", False, "wordnet"), ("retain", "lynx", True, "user")}
    # back where it was proposed, it is the proposal again
    again = moved.move(3)
    assert again.entry(3).related.source == "wordnet"
    assert answers(again) == {("coref", "lynx", True, "wordnet")}


def test_edit_rejects_the_proposed_words_and_keeps_the_new_ones(review):
    edited = review.edit(2, "  tabby   cat ")
    assert sides(edited)[0] == ["kitty", "tabby cat", "lynx", "kitten"]
    assert answers(edited) == {("coref", "tabby", False, "wordnet"), ("coref", "tabby cat", True, "user")}
    # the same words in other letters are the same proposal
    assert answers(review.edit(2, "Tabby")) == {("coref", "tabby", True, "wordnet")}


def test_ones_own_words_put_better_are_no_rejection():
    own = Review.start(ConceptSet("cat", corefs=(Related("kiten"),)))
    assert answers(own.edit(1, "kitten")) == {("coref", "kitten", True, "user")}
    assert answers(own.move(1)) == {("coref", "kiten", False, "user"), ("retain", "kiten", True, "user")}


def test_certainty_is_changed_in_the_set_but_remembered_as_proposed(review):
    changed = review.set_certainty(2, "very high").set_certainty(5, 0.25)
    assert changed.entry(2).related.certainty == 1.0
    assert changed.entry(5).related.certainty == 0.25
    assert {d.text: d.certainty for d in changed.decisions()} == {"tabby": 0.6, "dog": 0.8}


def test_hold_out_and_train(review):
    changed = review.hold_out(1, 5).train(4)
    assert [r.text for r in changed.concepts.held_out_corefs] == ["kitty"]
    assert [r.text for r in changed.concepts.held_out_retains] == ["dog"]
    assert {e.status for e in changed.entries if e.number in (1, 4, 5)} == {"accepted"}


def test_add_gets_the_next_number(review):
    added = review.add("coref", "moggy").add("retain", "fox", "Low", held_out=True)
    assert [(e.number, e.related.text) for e in added.entries[-2:]] == [(7, "moggy"), (8, "fox")]
    assert added.entry(8).related == Related("fox", 0.4, "user", True)
    assert answers(added) == {("coref", "moggy", True, "user"), ("retain", "fox", True, "user")}


def test_undo_and_redo_walk_the_same_way(review):
    steps = [review]
    for change in (
        lambda r: r.reject(1),
        lambda r: r.move(3),
        lambda r: r.edit(2, "tabby cat"),
        lambda r: r.set_certainty(5, 0.3),
        lambda r: r.hold_out(6),
        lambda r: r.add("coref", "moggy"),
    ):
        steps.append(change(steps[-1]))
    here = steps[-1]
    for step in reversed(steps[:-1]):
        here = here.undo()
        assert here.entries == step.entries
        assert here.decisions() == step.decisions()
    with pytest.raises(SuggestError, match="nothing to undo"):
        here.undo()
    for step in steps[1:]:
        here = here.redo()
        assert here.entries == step.entries
    with pytest.raises(SuggestError, match="nothing to redo"):
        here.redo()


def test_a_new_change_ends_what_could_be_redone(review):
    changed = review.reject(1).undo().reject(2)
    with pytest.raises(SuggestError, match="redo"):
        changed.redo()


def test_a_change_that_changes_nothing_is_no_step(review):
    once = review.accept(1)
    assert once.accept(1) is once
    assert once.move(2).undo().entries == once.entries


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda r: r.accept(7), SuggestError, ["no number 7", "1 to 6"]),
        (lambda r: r.accept(), SuggestError, ["No number"]),
        (lambda r: r.reject(1).move(1), SuggestError, ["1 is rejected", "Accept 1"]),
        (lambda r: r.edit(1, "   "), ConceptError, ["empty"]),
        (lambda r: r.edit(1, "a\x00b"), ConceptError, ["control character"]),
        (lambda r: r.edit(1, "CAT"), ConceptError, ["CAT", "the target itself"]),
        (lambda r: r.edit(1, "tabby"), ConceptError, ["tabby", "already a coref", "number"]),
        (lambda r: r.add("coref", "dog"), ConceptError, ["dog", "also a", "number"]),
        (lambda r: r.reject(5).add("coref", "dog").accept(5), ConceptError, ["dog", "also a"]),
        (lambda r: r.reject(5).add("retain", "Dog"), ConceptError, ["Dog", "number 5", "Accept 5"]),
        (lambda r: r.add("corefs", "moggy"), SuggestError, ["corefs", "coref, retain"]),
        (lambda r: r.add("coref", "moggy", "Hihg"), ConceptError, ["Hihg", "Did you mean 'High'"]),
        (lambda r: r.set_certainty(1, "Hihg"), ConceptError, ["Hihg", "Very High"]),
        (lambda r: r.set_certainty(1, 1.5), ConceptError, ["1.5", "[0, 1]"]),
        (lambda r: r.set_certainty(1, float("nan")), ConceptError, ["nan"]),
    ],
)
def test_what_cannot_be_done_says_why(review, change, error, words):
    with pytest.raises(error) as raised:
        change(review)
    for word in words:
        assert word in str(raised.value)


def test_a_coref_cannot_be_the_anchor():
    review = Review.start(ConceptSet("cat", corefs=(Related("kitty"),), anchor="dog"))
    with pytest.raises(ConceptError, match="anchor"):
        review.add("coref", "dog")


def test_every_phrase_may_be_rejected(review):
    empty = review.reject(1, 2, 3, 4, 5, 6)
    assert sides(empty) == ([], [])
    assert empty.add("coref", "moggy").entry(7).related.text == "moggy"


def test_what_is_in_the_set_wins_over_a_rejected_phrase_of_the_same_words(review):
    swapped = review.reject(2).edit(1, "tabby")
    assert ("coref", "tabby", True, "user") in answers(swapped)
    assert ("coref", "tabby", False, "wordnet") not in answers(swapped)


def test_proposals_bring_what_was_measured(concepts):
    kitty = Candidate("Kitty", "coref", 0.7, "openai:m", "a pet name", similarity=0.5, closeness=0.9)
    proposals = [kitty, Candidate("dog", "coref", 0, "x")]
    review = Review.start(concepts, proposals=proposals, sense="animal").accept(1).accept(5)
    kitty, dog = review.decisions()
    assert kitty == Decision("cat", "object", "Kitty", "coref", True, 0.7, "openai:m", 0.5, 0.9, "animal")
    assert (dog.source, dog.closeness) == ("wordnet", None)
    moved = review.move(1).decisions()
    assert {(d.side, d.accepted, d.closeness) for d in moved if d.text.lower() == "kitty"} == {
        ("coref", False, 0.9),
        ("retain", True, 0.9),
    }
    assert [d.closeness for d in review.edit(1, "puss").decisions() if d.text == "puss"] == [None]


def test_a_second_review_knows_the_first(concepts, tmp_path):
    memory = Memory(tmp_path / "decisions.jsonl")
    first = Review.start(concepts)
    changed = first.accept(1).set_certainty(2, 0.2).move(3)
    memory.update(first.decisions(), changed.decisions())
    second = Review.start(changed.concepts, known=memory.decisions())
    assert {e.related.text for e in second.open} == {"kitten", "dog", "tiger"}
    tabby = next(d for d in second.decisions() if d.text == "tabby")
    assert tabby.certainty == 0.6  # as it was proposed, although the file says 0.2
    # to change one's mind in the second review replaces the decision of the first
    number = next(e.number for e in second.entries if e.related.text == "kitty")
    third = second.reject(number)
    memory.update(second.decisions(), third.decisions())
    assert memory.rejected("cat") == {("coref", "kitty"), ("coref", "lynx")}
    memory.update(third.decisions(), third.undo().decisions())
    assert memory.rejected("cat") == {("coref", "lynx")}
