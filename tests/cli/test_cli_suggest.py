"""`crce suggest`, and `crce erase` for a concept outside the atlas."""

from __future__ import annotations

import json
import shutil

import pytest
from llm.server import ScriptedServer, answer

from crce.concepts import find_concepts, parse_concepts, read_concepts
from crce.concepts.documents import dump_json, parse_json_sets
from crce.suggest import read_record


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Every test in a folder of its own, without decisions and settings of whoever runs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRCE_DECISIONS", str(tmp_path / "memory" / "decisions.jsonl"))
    for name in ("CRCE_SUGGESTER", "CRCE_PROMPTS", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def suggested(crce, tmp_path_factory):
    """The result of `crce suggest walrus`, and the folder it wrote to."""
    folder = tmp_path_factory.mktemp("walrus")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CRCE_DECISIONS", str(folder / "memory" / "none.jsonl"))
        patch.setenv("COLUMNS", "160")
        result = crce("suggest", "walrus", "--corefs", 2, "--retains", 4, "--held-out", 2)
    assert result.code == 0, result.err
    return result, folder


def test_the_table_shows_every_phrase_with_its_use_and_reason(suggested):
    result, folder = suggested
    concepts = read_concepts(folder / "walrus.yaml")
    assert len(concepts.train_retains) == 4
    assert len(concepts.held_out_retains) == 2
    lines = result.out.splitlines()
    for side, related in [("coref", concepts.corefs), ("retain", concepts.retains)]:
        for r in related:
            line = next(line for line in lines if f" {r.text} " in line)
            assert side in line
            assert ("evaluation" if r.held_out else "training") in line
            assert r.source in line
    for word in ("phrase", "side", "used for", "certainty", "source", "reason"):
        assert word in result.out


def test_the_set_and_its_record_lie_side_by_side(suggested):
    result, folder = suggested
    assert sorted(path.name for path in folder.iterdir()) == ["walrus.suggest.json", "walrus.yaml"]
    record = read_record(folder / "walrus.suggest.json")
    assert record.concept_set == read_concepts(folder / "walrus.yaml")
    assert record.suggester == "lexicon"
    for line in ("set      walrus.yaml", "crce review walrus.yaml", "crce erase walrus.yaml"):
        assert line in result.out


def test_a_set_is_never_overwritten_unless_forced(crce, suggested, tmp_path):
    _, folder = suggested
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    mine = "target: walrus\ncorefs: [mine]\n"
    (tmp_path / "walrus.yaml").write_text(mine)
    replayed = ["suggest", "--replay", "walrus.suggest.json"]
    assert "set      walrus-2.yaml" in crce(*replayed).out
    assert (tmp_path / "walrus.yaml").read_text() == mine
    assert (tmp_path / "walrus-2.suggest.json").is_file()

    refused = crce(*replayed, "--out", "walrus.yaml")
    assert refused.code == 2
    assert "--force" in refused.err
    assert (tmp_path / "walrus.yaml").read_text() == mine

    assert crce(*replayed, "--force").code == 0
    assert read_concepts("walrus.yaml") == read_concepts("walrus-2.yaml")


def test_replay_makes_the_same_set(crce, suggested, tmp_path):
    _, folder = suggested
    result = crce("suggest", "--replay", folder / "walrus.suggest.json", "--out", "again.yaml")
    assert result.code == 0, result.err
    assert (tmp_path / "again.yaml").read_text() == (folder / "walrus.yaml").read_text()
    assert read_record("again.suggest.json") == read_record(folder / "walrus.suggest.json")


def test_json_is_the_set_alone_and_writes_nothing(crce, suggested, tmp_path):
    _, folder = suggested
    result = crce("suggest", "walrus", "--corefs", 2, "--retains", 4, "--held-out", 2, "--json")
    assert result.code == 0
    assert result.out == dump_json(read_concepts(folder / "walrus.yaml"))
    assert list(tmp_path.iterdir()) == []
    result = crce("suggest", "--replay", folder / "walrus.suggest.json", "--json", "--out", "set.json")
    assert parse_json_sets(result.out, "stdout") == [read_concepts("set.json")]


def test_too_few_phrases_are_a_warning(crce, suggested):
    result, _ = suggested
    record = read_record(suggested[1] / "walrus.suggest.json")
    assert result.err == "".join(f"warning: {warning}\n" for warning in record.warnings)
    result = crce("suggest", "walrus", "--corefs", 60, "--json")
    assert "where 60 were asked for" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["crce suggest cat", "--replay"]),
        (["cat", "--replay", "x.json"], ["--replay"]),
        (["qwzxv"], ["qwzxv", "--kind", "--suggester"]),
        (["cat", "--kind", "animal"], ["animal", "object"]),
        (["cat", "--suggester", "lexcon"], ["lexcon", "lexicon"]),
        (["cat", "--suggester", "openai:gpt"], ["OPENAI_API_KEY"]),
        (["cat", "--verify"], ["lexicon", "openai:MODEL"]),
        (["cat", "--corefs", "-1"], ["--corefs"]),
        (["cat", "--corefs", "0", "--retains", "0"], ["at least one"]),
        (["--replay", "x.json", "--kind", "style"], ["--replay", "--kind"]),
        (["--replay", "nowhere.json"], ["nowhere.json", "No such file"]),
        (["--replay", "x.json", "--corefs", "3", "--seed", "9"], ["--corefs, --seed", "no effect"]),
        (["cat", "--base-url", "http://localhost:1"], ["--base-url", "lexicon", "openai:MODEL"]),
        (["cat", "--prompts", "mine"], ["--prompts", "lexicon", "openai:MODEL"]),
        (["cat", "--out", "."], ["is a folder", "cat.yaml"]),
        (["cat", "--out", "..", "--force"], ["is a folder", "cat.yaml"]),
        (["cat " * 80], ["319 characters", "at most 200"]),
        (["  "], ["argument", "empty"]),
        (["walrus", "--ground", "--model", "./no-such-model"], ["no-such-model"]),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(crce, tmp_path, arguments, words):
    result = crce("suggest", *arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(crce, suggested, tmp_path):
    (tmp_path / "file").write_text("")
    result = crce("suggest", "--replay", suggested[1] / "walrus.suggest.json", "--out", "file/set.yaml")
    assert result.code == 2
    assert "Cannot write" in result.err


# ---- crce erase for a concept outside the atlas

SMALL = ["--steps", 1, "--pool", 2, "--device", "cpu", "--no-eval"]


def test_erase_suggests_a_set_says_so_and_keeps_the_record(crce, tiny_folder, tmp_path):
    folder = tmp_path / "run"
    result = crce("erase", "walrus", "--model", tiny_folder, "--out", folder, *SMALL)
    assert result.code == 0, result.err
    said = [line for line in result.err.splitlines() if "suggested by lexicon" in line]
    assert len(said) == 1
    assert "'walrus' is not in the atlas" in said[0]
    concepts = parse_concepts((folder / "concepts.yaml").read_text(), "concepts.yaml")
    record = read_record(folder / "suggest.json")
    assert record.concept_set == concepts
    assert concepts.train_corefs
    assert concepts.train_retains
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_erase_takes_a_sense_in_brackets(crce, tiny_folder, tmp_path):
    result = crce("erase", "mouse (animal)", "--model", tiny_folder, "--out", tmp_path / "run", *SMALL)
    assert result.code == 0, result.err
    assert read_record(tmp_path / "run" / "suggest.json").request.sense == "animal"


def test_erase_of_an_atlas_target_or_a_file_suggests_nothing(crce, tiny_folder, tmp_path):
    result = crce("erase", "cat", "--model", tiny_folder, "--out", tmp_path / "run", *SMALL)
    assert result.code == 0, result.err
    assert "suggested" not in result.err
    assert not (tmp_path / "run" / "suggest.json").exists()
    assert read_concepts(tmp_path / "run" / "concepts.yaml") == find_concepts("cat")


@pytest.mark.parametrize("slip", ["cta", "airplain", "Taylor Swfit", "kitten", "missing.yaml", "cats.json#cat"])
def test_slips_corefs_and_missing_files_keep_their_errors(crce, tmp_path, slip):
    result = crce("erase", slip)
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert "suggested" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_erase_of_what_nobody_knows_says_what_to_do(crce, tmp_path):
    result = crce("erase", "qwzxv jkqp")
    assert result.code == 2
    assert "qwzxv jkqp" in result.err
    assert "crce suggest 'qwzxv jkqp' --kind KIND --out FILE.yaml, then crce erase FILE.yaml." in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_erase_of_a_suggested_file_keeps_its_record(crce, suggested, tiny_folder, tmp_path):
    shutil.copytree(suggested[1], tmp_path, dirs_exist_ok=True)
    assert crce("erase", "walrus.yaml", "--model", tiny_folder, "--out", "run", *SMALL).code == 0
    assert read_record("run/suggest.json") == read_record("walrus.suggest.json")
    assert crce("erase", "run/concepts.yaml", "--model", tiny_folder, "--out", "again", *SMALL).code == 0
    assert read_record("again/suggest.json") == read_record("walrus.suggest.json")

    (tmp_path / "walrus.yaml").write_text("target: seal\ncorefs: [seals]\nretains: [dog]\n")
    result = crce("erase", "walrus.yaml", "--model", tiny_folder, "--out", "other", *SMALL)
    assert result.code == 0, result.err
    assert not (tmp_path / "other" / "suggest.json").exists()


def test_erase_tells_what_the_suggestion_lacks(crce, tiny_folder, tmp_path, monkeypatch):
    from crce.suggest.lexicon import LexiconSuggester

    propose = LexiconSuggester.propose
    monkeypatch.setattr(
        LexiconSuggester, "propose", lambda *given: [c for c in propose(*given) if c.side == "coref"][:3]
    )
    result = crce("erase", "walrus", "--model", tiny_folder, "--out", tmp_path / "run", *SMALL)
    assert result.code == 0, result.err
    for warning in read_record(tmp_path / "run" / "suggest.json").warnings:
        assert f"warning: {warning}\n" in result.err
    assert "warning: without retains, neighbours of 'walrus'" in result.err


def test_erase_refuses_a_set_without_corefs_until_it_is_confirmed(crce, tiny_folder, tmp_path, monkeypatch):
    from crce.suggest.lexicon import LexiconSuggester

    propose = LexiconSuggester.propose
    monkeypatch.setattr(LexiconSuggester, "propose", lambda *given: [c for c in propose(*given) if c.side == "retain"])
    result = crce("erase", "walrus", "--model", tiny_folder, "--out", tmp_path / "run", *SMALL)
    assert result.code == 2
    assert "No coref of 'walrus' is known" in result.err
    out = ("--out", tmp_path / "walrus.yaml")
    assert crce("suggest", "walrus", *out).code == 2
    assert crce("suggest", "walrus", "--corefs", "0", "--held-out", "0", *out).code == 0


def test_erase_refuses_a_concept_that_is_too_long(crce, tmp_path):
    result = crce("erase", "walrus " * 60)
    assert result.code == 2
    assert "at most 200" in result.err
    assert "walrus " * 9 not in result.err
    assert list(tmp_path.iterdir()) == []


def test_answers_that_came_to_nothing_are_kept(crce, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-secret")
    with ScriptedServer(*[answer("Cats are lovely.")] * 3) as server:
        result = crce("suggest", "walrus", "--suggester", "openai:tiny", "--base-url", server.url)
    assert result.code == 2
    kept = tmp_path / "walrus.failed.json"
    assert f"answers  {kept.name}" in result.err
    assert [exchange["reply"] for exchange in json.loads(kept.read_text())] == ["Cats are lovely."] * 3
    assert "sk-test-secret" not in kept.read_text()
