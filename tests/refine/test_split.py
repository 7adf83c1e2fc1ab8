"""The test half: chosen once, never touched, and the only thing that is scored."""

from __future__ import annotations

import pytest

from crce.errors import RunError
from crce.refine.split import Split, score, split_held_out


def test_every_second_scored_phrase_goes_to_the_probe_half(many_cats, reported):
    split = split_held_out(many_cats, reported(many_cats))
    assert split.corefs == ("kitten", "Siamese cat")
    assert split.retains == ("tiger",)


def test_what_could_not_be_scored_stays_out_of_training_and_does_not_use_up_a_place(many_cats, reported):
    split = split_held_out(many_cats, reported(many_cats, kitten=None))
    assert split.corefs == ("kitten", "feline")


def test_only_the_target_and_the_test_half_are_scored(many_cats, reported):
    split = split_held_out(many_cats, reported(many_cats))
    report = reported(many_cats, cat=1, kitten=2, feline=4, kitty=4, tiger=3, wolf=0, dog=0)
    numbers = {name: measure["value"] for name, measure in score(report, split).items()}
    assert numbers["erased"] == 0.75
    assert numbers["coref_erased"] == 0.75  # kitten 2 of 4, Siamese cat 0 of 4
    assert numbers["kept"] == 0.75
    assert numbers["H3"] == pytest.approx(0.75)
    assert numbers["H"] == pytest.approx(0.8)  # all that is unrelated is kept


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ({"cat": None}, "can't measure the target: the judge does not know it"),
        ({"kitten": None, "feline": None, "Siamese_cat": None}, "can't measure a held-out coref"),
        ({"tiger": None, "wolf": None}, "can't measure a held-out retain"),
    ],
)
def test_a_run_that_cannot_be_measured_is_refused(many_cats, reported, left_out, said):
    with pytest.raises(RunError, match=said):
        split_held_out(many_cats, reported(many_cats, **left_out))


def test_without_a_judge_the_model_is_named(many_cats, reported):
    report = reported(many_cats, cat=None) | {"judge": None}
    with pytest.raises(RunError, match="No judge knows the images of the model demo"):
        split_held_out(many_cats, report)


def test_a_set_without_held_out_phrases_is_refused(cats, reported):
    bare = type(cats)("cat", corefs=cats.train_corefs, retains=cats.retains)
    with pytest.raises(RunError, match="a held-out coref: the concept set holds none.*hold out other phrases"):
        split_held_out(bare, reported(bare))


@pytest.mark.parametrize(
    ("text", "touched"),
    [
        ("kitten", "kitten"),
        ("Kittens", "kitten"),
        ("a fluffy kitten", "kitten"),
        ("siamese kitty", "Siamese cat"),
        ("Bengal tiger", "tiger"),
        ("tabby cat", None),
        ("cat", None),
        ("lion", None),
    ],
)
def test_a_phrase_that_says_the_same_as_the_test_half_touches_it(text, touched):
    split = Split("cat", ("kitten", "Siamese cat"), ("tiger",))
    assert split.overlap(text) == touched
