"""The loop on the bundled model, with short trainings and few pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from edited_run import edit_run
from safetensors.torch import load_file
from short_run import SET

from crce.concepts import read_concepts
from crce.errors import ConfigError, RunError, SuggestError
from crce.evaluate import Drawn
from crce.llm import Reply
from crce.refine import Refinement, RoundPlanned, RoundScored, read_refinement, refine
from crce.refine.record import erased_sense, inherited_split
from crce.refine.split import score
from crce.suggest.candidates import Request
from crce.suggest.llm import LLMSuggester
from crce.suggest.memory import Decision, Memory
from crce.suggest.record import Record, SuggestionSettings, plain_concepts, write_record
from crce.training import Erasure, Finished, Step


@pytest.fixture(scope="module")
def suggester(list_suggester):
    return list_suggester(
        corefs={"cat": ["house cat", "kittens", "pet cats"], "fox": ["red fox"]},
        retains={"cat": ["leopard", "rabbit"], "dog": ["wolves", "puppy"]},
    )


@pytest.fixture(scope="module")
def run(short_run: Path) -> Path:
    """A short run with its report; to be copied, not refined."""
    return short_run


@pytest.fixture(scope="module")
def again(run, suggester, demo_backbone, tmp_path_factory):
    """`again(folder, rounds=2)` refines; without a folder, a new copy of the run."""
    memory = Memory(tmp_path_factory.mktemp("memory") / "decisions.jsonl")

    def make(folder: Path | None = None, **settings) -> Refinement:
        if folder is None:
            folder = tmp_path_factory.mktemp("copy") / "cat"
            shutil.copytree(run, folder)
        options = {"rounds": 2, "suggester": suggester, "min_gain": 0.0, "memory": memory, "backbone": demo_backbone}
        return refine(folder, **options | settings)

    return make


@pytest.fixture(scope="module")
def refined(again) -> tuple[Refinement, list]:
    events: list = []
    return again(on_event=events.append), events


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter.safetensors")


def test_each_round_is_a_run_that_starts_from_the_best_before_it(refined):
    refinement, _ = refined
    assert len(refinement.rounds) >= 2
    best = refinement.rounds[0]
    for scored in refinement.rounds[1:]:
        erasure = Erasure.load(scored.folder)
        assert erasure.folder == refinement.root / f"round-{scored.number}"
        assert erasure.concepts == scored.concepts
        assert erasure.info["start_from"]["run"] == str(best.folder.resolve())
        assert erasure.config.seed == 3 + scored.number
        assert (scored.folder / "report.html").is_file()
        assert scored.gain == pytest.approx(scored.H - best.H, abs=1e-4)
        if scored.gain >= 0:
            best = scored
    assert refinement.best_round is best
    assert refinement.stopped == ("all rounds done" if refinement.rounds[-1].gain >= 0 else "no gain")


def test_what_leaked_was_added_and_the_reason_is_kept(refined):
    first = refined[0].rounds[1]
    report = json.loads((refined[0].root / "report.json").read_text())
    leaked = {leak["text"] for leak in report["leaks"]}
    assert leaked  # so short a training leaves much to learn
    assert first.changes
    assert all(change.reason for change in first.changes)
    trained = {r.text for r in first.concepts.train_corefs}
    assert {c.text for c in first.added("coref")} <= trained
    assert ("pussycat" in trained) == ("pussycat" in leaked)  # the probe half


def test_the_test_half_is_fixed_and_never_trained(refined):
    refinement, _ = refined
    test = set(refinement.split.corefs + refinement.split.retains)
    assert {"kitten", "tiger"} <= test
    for scored in refinement.rounds:
        concepts = read_concepts(scored.folder / "concepts.yaml")
        assert test <= {r.text for r in concepts.held_out_corefs + concepts.held_out_retains}
        trained = {r.text for r in concepts.train_corefs + concepts.train_retains}
        assert not trained & {*test, "kittens", "pet cats"}
        report = json.loads((scored.folder / "report.json").read_text())
        numbers = score(report, refinement.split)
        assert scored.summary == numbers
        assert report["settings"] | {"phrases_per_group": 10} == {
            "images_per_prompt": 1,
            "seed": 50,
            "steps": 4,
            "guidance": 4.0,
            "phrases_per_group": 10,
        }


def test_events_tell_every_round(refined):
    refinement, events = refined
    assert [e.round.number for e in events if isinstance(e, RoundScored)] == [r.number for r in refinement.rounds]
    assert [e.round.number for e in events if isinstance(e, RoundPlanned)] == [r.number for r in refinement.rounds[1:]]
    assert {Step, Drawn, Finished} <= {type(e) for e in events}


def test_refine_json_reads_back_and_a_finished_refinement_is_not_done_twice(refined, again):
    refinement, _ = refined
    assert read_refinement(refinement.root) == refinement
    events: list = []
    assert again(refinement.root, on_event=events.append) == refinement
    assert {type(e) for e in events} == {RoundScored}


class Killed(Exception):
    pass


def test_a_stopped_refinement_goes_on_to_the_same_end(refined, again, run, tmp_path):
    whole = refined[0].rounds[1]
    folder = tmp_path / "cat"
    shutil.copytree(run, folder)
    for where in (RoundPlanned, Step, Drawn):  # each time it goes on from where it was stopped before

        def kill(event, where=where):
            if isinstance(event, where):
                raise Killed

        with pytest.raises(Killed):
            again(folder, rounds=1, on_event=kill)
        assert not read_refinement(folder).rounds[-1].summary
    ended = again(folder, rounds=1)
    assert (ended.rounds[1].changes, ended.rounds[1].summary) == (whole.changes, whole.summary)
    here, there = weights(ended.rounds[1].folder), weights(whole.folder)
    assert all(torch.equal(here[name], there[name]) for name in there)


def test_a_refinement_of_a_round_keeps_its_test_half(refined, tmp_path):
    refinement, _ = refined
    root = tmp_path / "cat"
    shutil.copytree(refinement.root, root)
    last = refinement.rounds[-1]
    split = inherited_split(root / last.folder.name, last.concepts)
    assert split == refinement.split
    shutil.copytree(root / last.folder.name, root / "mine")  # beside the rounds, but none of them
    assert inherited_split(root / "mine", last.concepts) is None
    assert inherited_split(root, last.concepts) is None


def test_other_settings_or_weights_do_not_go_on(refined, again, tmp_path):
    folder = tmp_path / "cat"
    shutil.copytree(refined[0].root, folder)
    with pytest.raises(RunError, match="with images_per_prompt 1, not 5. Use the same, or: Move .*refine.json"):
        again(folder, images_per_prompt=5)
    with pytest.raises(RunError, match="with min_gain 0.0, not 0.5"):
        again(folder, min_gain=0.5)
    with pytest.raises(RunError, match="with suggester list, not lexicon"):
        again(folder, suggester="lexicon")
    with pytest.raises(RunError, match="with judge emoji, not emoji-style"):
        again(folder, judge="emoji-style")
    shutil.copy(refined[0].rounds[1].folder / "adapter.safetensors", folder / "adapter.safetensors")
    with pytest.raises(RunError, match="adapter.safetensors of the run .* changed after crce wrote the run"):
        again(folder)
    edit_run(folder)
    with pytest.raises(RunError, match="have changed since it was refined"):
        again(folder)
    (folder / "refine.json").write_text('{"rounds": [{}]}')
    with pytest.raises(RunError, match="Cannot read .*refine.json"):
        again(folder)


def test_a_run_that_learned_all_there_is_stops_at_once(again, run, tmp_path):
    """Leaks and breaks only in the test half: they are not to be learned from."""
    folder = tmp_path / "cat"
    shutil.copytree(run, folder)
    report = json.loads((folder / "report.json").read_text())
    for group in report["groups"].values():
        for prompt in group["prompts"]:
            prompt["erased"] = 0 if prompt["class"] == "cat" else prompt["base"]
    report["leaks"] = [{"text": "kitten", "group": "coref_held_out", "base": 1, "erased": 1, "n": 1}]
    report["broken"] = []
    (folder / "report.json").write_text(json.dumps(report))
    ended = again(folder)
    assert (ended.stopped, ended.best, len(ended.rounds)) == ("nothing to learn", 0, 1)
    assert json.loads((folder / "refine.json").read_text())["stopped"] == "nothing to learn"


def test_a_run_without_corefs_and_retains_is_refused(again, run, tmp_path):
    folder = tmp_path / "cat"
    shutil.copytree(run, folder)
    config = json.loads((folder / "run.json").read_text())["config"]
    edit_run(folder, config=config | {"crce": False})
    with pytest.raises(RunError, match="trained on its target alone"):
        again(folder)


def test_numbers_out_of_range_are_refused(again, run, tmp_path):
    for setting, value in (("rounds", 0), ("min_gain", 1.0), ("min_gain", -0.1), ("images_per_prompt", 0)):
        with pytest.raises(ConfigError, match=f"{setting} is {value}"):
            again(run, **{setting: value})
    with pytest.raises(RunError, match="is not a run folder"):
        again(tmp_path)
    assert not (run / "refine.json").exists()


def test_a_damaged_report_says_what_to_do(again, run, tmp_path):
    folder = tmp_path / "cat"
    shutil.copytree(run, folder)
    (folder / "report.json").write_text("[1")
    with pytest.raises(RunError, match="Cannot read .*report.json: .*Evaluate again: crce evaluate"):
        again(folder)
    (folder / "report.json").write_text("{}")
    with pytest.raises(RunError, match="report.json: verdict: Field required. Evaluate again"):
        again(folder)


def test_a_folder_in_the_way_of_a_round_is_not_touched(again, run, tmp_path):
    folder = tmp_path / "cat"
    shutil.copytree(run, folder)
    shutil.copytree(run, folder / "round-1")
    with pytest.raises(RunError, match="round-1 holds a run that is not in .*refine.json"):
        again(folder)
    assert read_concepts(folder / "round-1" / "concepts.yaml") == SET


def suggested(folder: Path, sense: str | None) -> None:
    """Write the record of a suggestion into a run."""
    settings = SuggestionSettings(corefs=8, retains=8, held_out=4, diversity=0.3)
    request, concepts = Request("cat", "object", sense), plain_concepts(SET)
    write_record(
        folder / "suggest.json",
        Record(
            crce="1", suggester="s", request=request, settings=settings, proposed=(), decisions=(), concepts=concepts
        ),
    )


class FailingChat:
    """Answers once, then the service is gone."""

    provider, model, remote = "scripted", "tiny", False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def complete(self, messages, schema, **_) -> Reply:
        self.asked.append(messages[-1].content)
        if len(self.asked) > 1:
            raise SuggestError("scripted:tiny can't be reached.")
        sides = {"corefs": ["house cat", "moggy"], "retains": ["leopard", "rabbit"]}
        return Reply(
            json.dumps(
                {
                    side: [{"text": text, "reason": "so it is", "certainty": "High"} for text in texts]
                    for side, texts in sides.items()
                }
            )
        )


def test_the_sense_that_was_erased_is_asked_for_and_its_rejections_count(again, list_suggester, run, tmp_path):
    folder = tmp_path / "cat"
    shutil.copytree(run, folder)
    suggested(folder, "animal")
    memory = Memory(tmp_path / "decisions.jsonl")
    given = {"kind": "object", "side": "coref", "accepted": False, "certainty": 0.8, "source": "list"}
    rejected = [
        Decision("cat", text="house cat", sense="animal", **given),
        Decision("cat", text="pet cats", sense="whip", **given),
    ]
    memory.update([], rejected)
    suggester = list_suggester(corefs={"cat": ["house cat"]})

    def stop(event):
        if isinstance(event, RoundPlanned):
            raise Killed

    with pytest.raises(Killed):
        again(folder, suggester=suggester, memory=memory, on_event=stop)
    asked = next(r for r in suggester.asked if r.target == "cat")
    assert asked.sense == "animal"
    assert asked.avoid == {("coref", "house cat")}


def test_the_sense_comes_from_the_run_that_a_round_belongs_to(refined, tmp_path):
    root = tmp_path / "cat"
    shutil.copytree(refined[0].root, root)
    assert erased_sense(root, "cat") is None
    suggested(root, "animal")
    assert erased_sense(root, "Cat") == erased_sense(root / "round-1", "cat") == "animal"
    assert erased_sense(root, "dog") is None
    (root / "suggest.json").write_text("{}")
    with pytest.raises(RunError, match="which sense of 'cat' was erased, and can't be read. Move it away"):
        erased_sense(root, "cat")


def test_a_fault_of_the_service_ends_it_and_what_was_answered_is_kept(again, run, tmp_path):
    folder = tmp_path / "cat"
    shutil.copytree(run, folder)
    for tries in (1, 2):
        with pytest.raises(SuggestError, match="can't be reached"):
            again(folder, suggester=LLMSuggester(FailingChat()))
        exchanges = json.loads((folder / "round-1" / "suggest-exchanges.json").read_text())
        assert [exchange["kind"] for exchange in exchanges] == ["propose"] * tries
        assert "moggy" in exchanges[-1]["reply"]
        assert len(read_refinement(folder).rounds) == 1


@pytest.mark.parametrize(
    ("changed", "steps"), [({"solver": "dpm++"}, None), ({}, 4)], ids=["the model's own solver", "the user's steps"]
)
def test_rounds_are_sampled_and_judged_like_the_report(again, run, tmp_path, monkeypatch, changed, steps):
    folder = tmp_path / "cat"
    shutil.copytree(run, folder)
    report = json.loads((folder / "report.json").read_text())
    report["settings"] |= changed | {"steps": 4}
    report["judge"]["threshold"] = 0.75
    (folder / "report.json").write_text(json.dumps(report))
    monkeypatch.setattr("crce.refine.refinement._Loop._plan", lambda *_: None)
    settings = again(folder).settings
    assert (settings.steps, settings.threshold) == (steps, 0.75)
