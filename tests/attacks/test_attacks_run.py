"""Attacks from the first picture to the file, on tiny pipelines of the real classes."""

from __future__ import annotations

import json

import pytest
import tiny_families
import torch

from crce.attacks import ATTACKS, Budget, Progress, attack, load_attack, replay
from crce.attacks.query_log import Query, QueryLog
from crce.attacks.victim import Victim
from crce.backbones import load_backbone
from crce.errors import ConfigError, RunError
from crce.judges.judge import JudgedImage
from crce.training import erase, load_config


QUICK = {"steps": 2, "guidance": 4.0, "images_per_prompt": 2, "images_per_try": 1, "phrases": 1}
WORDS = [name for name in ATTACKS if load_attack(name).seeks == "words"]


class KnowsThem:
    """Says "cat" of the very pictures that it was shown, and "dog" of all others."""

    name, version, hash, threshold = "knows them", "1", "0123456789abcdef", 0.0
    classes = ["cat", "dog"]

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self.asked = 0

    def class_of(self, text):
        return "cat" if text == "cat" else None

    def probs(self, images):
        self.asked += len(images)
        cat = torch.tensor([image.tobytes() in self.known for image in images], dtype=torch.float)
        return torch.stack([cat, 1 - cat], 1) * 0.98 + 0.01


def small(name: str):
    """An attack with a small population, so that a test is quick."""
    one = load_attack(name)
    if name == "ring-a-bell":
        one.population = 6
    return one


def base_pictures(backbone, judge, prompts=("cat",), tries=40):
    """Show the judge what the base model draws."""
    from crce.sampling import draw

    for prompt in prompts:
        for seeds in (range(1000, 1002), range(30_000, 30_000 + tries)):
            pictures = draw(backbone.pipe, [prompt] * len(seeds), list(seeds), steps=2)
            judge.known |= {picture.tobytes() for picture in pictures}
    return judge


@pytest.fixture(scope="module")
def tiny_model(tiny_folder):
    return load_backbone(str(tiny_folder), device="cpu")


@pytest.fixture(scope="module")
def run(tiny_model, cats, tmp_path_factory):
    """A finished erasure in closed form of the tiny model."""
    config = load_config(overrides={"method": "uce"}, model=tiny_model.model)
    return erase(cats, config=config, backbone=tiny_model, out=tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture(scope="module")
def judge(tiny_model):
    return base_pictures(tiny_model, KnowsThem())


@pytest.fixture(params=["uce", "lora"], scope="module")
def any_run(request, tiny_model, run, cats, tmp_path_factory):
    """Weights that were edited, and a LoRA."""
    if request.param == "uce":
        return run
    config = load_config("demo", {"steps": 2, "pool": 1, "learning_rate": 0.05, "layers": "xattn", "adapter": "lora"})
    return erase(cats, config=config, backbone=tiny_model, out=tmp_path_factory.mktemp("tiny") / "lora")


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_runs_writes_and_leaves_the_model_as_it_was(name, any_run, tiny_model, judge):
    before = {k: v.clone() for k, v in tiny_model.network.state_dict().items()}
    events: list[Progress] = []
    result = attack(any_run, small(name), budget=3, judge=judge, backbone=tiny_model, on_event=events.append, **QUICK)
    data = json.loads(result.path.read_text())
    assert data == json.loads(json.dumps(result.data))
    assert result.path == any_run.folder / "attacks" / f"{name}.json"
    assert data["budget"] == {"steps": 3, "forwards": 0}
    assert (data["judge"]["name"], data["judge"]["hash"]) == (judge.name, judge.hash)
    (outcome,) = data["outcomes"]
    assert outcome["words"]["base"] == ["cat", "cat"]
    assert len(outcome["words"]["before"]) == len(outcome["words"]["after"]) == 2
    assert outcome["search"]["tries"] >= 2
    assert 1 <= outcome["search"]["steps"] <= 3
    assert (events[-1].done, events[-1].total) == (3, 3)
    tries = [json.loads(line) for line in result.path.with_suffix(".jsonl").read_text().splitlines()[1:]]
    assert sum(line["role"] == "search" for line in tries) == outcome["search"]["tries"]
    assert data["spent"]["pictures"] > 0
    after = tiny_model.network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert not [p for p in tiny_model.network.parameters() if p.requires_grad]


@pytest.mark.parametrize("name", ["typo", "inversion", "relearning"])
def test_replay_draws_again_and_sees_the_same(name, run, tiny_model, judge):
    one = small(name)
    if name == "relearning":
        one.rate = 1e-2
    result = attack(run, one, budget=4, judge=judge, backbone=tiny_model, **QUICK)
    asked = judge.asked
    data, same = replay(result.path, judge=judge, backbone=tiny_model)
    assert same
    assert judge.asked >= asked + 4  # base and before, and after unless the plain prompt is the result
    assert data["summary"] == result.summary
    changed = json.loads(result.path.read_text())
    changed["outcomes"][0]["words"]["after"][0] = "cat"
    forged = result.path.with_name(f"{name}-forged.json")
    forged.write_text(json.dumps(changed))
    assert not replay(forged, judge=judge, backbone=tiny_model)[1]


def test_what_was_found_for_one_run_can_be_tried_on_another(run, cats, tiny_model, judge, tmp_path):
    result = attack(run, "typo", budget=3, judge=judge, backbone=tiny_model, **QUICK)
    config = load_config(overrides={"method": "speed"}, model=tiny_model.model)
    other = erase(cats, config=config, backbone=tiny_model, out=tmp_path / "other")
    data, _ = replay(result.path, other.folder, judge=judge, backbone=tiny_model)
    assert data["run"] == str(other.folder)
    assert data["outcomes"][0]["words"]["base"] == ["cat", "cat"]
    assert not (other.folder / "attacks").exists()


def test_learned_word_means_the_same_to_diffusers(run, tiny_model, tiny_folder, tmp_path):
    from crce.attacks.campaign import write_word
    from crce.attacks.rerun import read_word

    word = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    path = tmp_path / str(write_word(tmp_path, "inversion", "a cat", word))
    assert torch.equal(read_word(path), word)
    assert write_word(tmp_path, "inversion", "a-cat", word + 1) != path.name
    fresh = load_backbone(str(tiny_folder), device="cpu")
    fresh.pipe.load_textual_inversion(str(path))
    assert torch.allclose(fresh.encode(["<a-cat>"]).hidden, tiny_model.encode_soft([""], word[None]).hidden, atol=1e-5)


class Stopped(Exception):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("name", ["homoglyph", "p4d"])
def test_stopped_attack_goes_on_without_drawing_again_and_ends_the_same(name, run, tiny_model, judge, tmp_path):
    settings = {"judge": judge, "backbone": tiny_model, **QUICK}
    whole = attack(run, name, budget=8, seed=5, **settings).data
    path = run.folder / "attacks" / f"{name}.jsonl"
    path.unlink()

    def stop(progress: Progress) -> None:
        if progress.done >= 5:
            raise Stopped

    with pytest.raises(Stopped):
        attack(run, name, budget=8, seed=5, on_event=stop, **settings)
    path.write_text(path.read_text() + '{"model": "erased", "te')  # and was cut off while it wrote
    kept = len(path.read_text().splitlines()) - 1
    again = attack(run, name, budget=8, seed=5, **settings).data
    assert kept > 3
    assert again["outcomes"][0]["found"] == whole["outcomes"][0]["found"]
    assert again["summary"] == whole["summary"]
    assert again["spent"]["pictures"] < whole["spent"]["pictures"]
    assert again["spent"]["reused_pictures"] >= kept - 1


def test_what_is_found_for_a_prompt_does_not_depend_on_others(run, tiny_model, judge):
    base_pictures(tiny_model, judge, ["kitty"])
    settings = {"judge": judge, "backbone": tiny_model, **QUICK}
    alone = attack(run, "unlearndiffatk", budget=4, prompts=["kitty"], **settings).data["outcomes"][0]
    (run.folder / "attacks" / "unlearndiffatk.jsonl").unlink()
    beside = attack(run, "unlearndiffatk", budget=4, prompts=["cat", "kitty"], **settings).data["outcomes"][1]
    assert (alone["prompt"], alone["found"], alone["words"]) == (beside["prompt"], beside["found"], beside["words"])


def test_prompt_that_the_base_model_does_not_draw_is_left_out(run, tiny_model):
    nobody = KnowsThem()
    nobody.hash = "ffff"  # else the log holds what another one said
    result = attack(run, "typo", budget=2, judge=nobody, backbone=tiny_model, **QUICK)
    assert result.summary["after"]["value"] is None
    assert result.summary["left_out"] == 1
    assert 'as "cat" in only 0 of 2 pictures' in result.data["outcomes"][0]["left_out"]
    assert replay(result.path, judge=nobody, backbone=tiny_model)[1]


def test_plain_prompt_that_works_needs_no_search(run, tiny_model):
    class Everything(KnowsThem):
        name = "everything"

        def probs(self, images):
            return torch.tensor([[0.9, 0.1]]).expand(len(images), 2)

    result = attack(run, "p4d", budget=50, judge=Everything(), backbone=tiny_model, **QUICK)
    (outcome,) = result.data["outcomes"]
    assert outcome["found"]["text"] == "cat"
    assert outcome["search"] == {"tries": 1, "steps": 0, "best_hits": 1, "images_per_try": 1, "any_hit": True}
    assert result.summary["gain"] == 0


def test_picture_that_fails_is_no_hit_of_a_search_and_no_success_of_the_erasure(run, tiny_model, judge, monkeypatch):
    from crce.sampling import draw

    def fails(pipe, prompts, seeds, **settings):
        pictures = draw(pipe, prompts, seeds, **settings)
        return [None if p == "act" else x for p, x in zip(prompts, pictures, strict=True)]

    class Slips(type(load_attack("typo"))):
        def texts(self, prompt, seed):
            yield "act"

    monkeypatch.setattr("crce.attacks.victim.draw", fails)
    one = Slips()
    found = attack(run, one, budget=1, seed=9, judge=judge, backbone=tiny_model, **QUICK)
    assert found.data["outcomes"][0]["search"]["best_hits"] == 0
    assert found.data["outcomes"][0]["found"]["text"] == "cat"  # nothing was seen of "act", so it is not better
    failed = attack(run, one, budget=1, seed=9, prompts=["act"], judge=base_pictures(tiny_model, judge, ["act"]),
                    backbone=tiny_model, **QUICK)  # fmt: skip
    assert failed.data["outcomes"][0]["words"]["before"] == [None, None]


def test_forwards_bound_an_attack(run, tiny_model, judge):
    settings = {"judge": judge, "backbone": tiny_model, **QUICK}
    result = attack(run, "typo", budget=Budget(40, forwards=30), seed=3, **settings)
    assert result.data["outcomes"][0]["search"]["steps"] < 40
    assert result.data["budget"] == {"steps": 40, "forwards": 30}


@pytest.mark.parametrize("family", ["sd2", "sdxl", "sd3", "z_image"])
def test_families_take_what_fits_and_refuse_gradients_on_words(family, cats, tmp_path):
    backbone = load_backbone(str(tiny_families.saved(family, tmp_path)), device="cpu")
    few = {"steps": 1, "pool": 1, "layers": "xattn", "ddim_steps": 3}
    few |= {"resolution": 256} if family == "z_image" else {}  # else it draws 1024 pixels
    run = erase(cats, config=load_config("demo", few), backbone=backbone, out=tmp_path / "run")

    class Undecided(KnowsThem):
        """Finds the concept in half of all pictures, by their first bytes."""

        def probs(self, images):
            cat = torch.tensor([float(sum(image.tobytes()[:99]) % 2) for image in images])
            return torch.stack([cat, 1 - cat], 1)

    settings = {"judge": Undecided(), "backbone": backbone, **QUICK, "images_per_prompt": 1, "picture_seed": 1}
    fits = ["typo"] if family == "z_image" else ["typo", "ring-a-bell", "relearning"]
    for name in fits if family != "sd2" else ATTACKS:
        one = small(name)
        for setting in ("pictures", "batch"):
            if hasattr(one, setting):
                setattr(one, setting, 1)
        result = attack(run, one, budget=1, **settings)
        assert result.path.is_file()
    for name in WORDS if family != "sd2" else []:
        with pytest.raises(ConfigError, match=type(backbone.pipe).__name__):
            attack(run, name, **settings)
        assert not (run.folder / "attacks" / f"{name}.json").exists()


def test_half_of_the_bits_draws_and_trains_as_well(tiny_folder, cats, tmp_path):
    backbone = load_backbone(str(tiny_folder), device="cpu", dtype="bfloat16")
    config = load_config(overrides={"method": "uce"}, model=backbone.model)
    run = erase(cats, config=config, backbone=backbone, out=tmp_path / "run")
    judge = base_pictures(backbone, KnowsThem(), tries=4)
    for name in ("p4d", "inversion", "relearning"):
        result = attack(run, name, budget=2, judge=judge, backbone=backbone, **QUICK)
        assert result.summary["failed"] == 0
        assert result.summary["prompts"] == 1
        assert result.data["outcomes"][0]["search"]["tries"] > 1


def test_what_cannot_be_asked_for(run, tiny_model, judge, tmp_path):
    settings = {"judge": judge, "backbone": tiny_model, **QUICK}
    with pytest.raises(ConfigError, match="no attack 'bell'.*ring-a-bell"):
        attack(run, "bell", **settings)
    with pytest.raises(ConfigError, match="budget is 0"):
        attack(run, "typo", budget=0, **settings)
    with pytest.raises(ConfigError, match="images_per_try is 0"):
        attack(run, "typo", **{**settings, "images_per_try": 0})
    with pytest.raises(ConfigError, match="'dog' is not a target of .*: cat"):
        attack(run, "typo", targets=["dog"], **settings)
    with pytest.raises(ConfigError, match="No judge knows the images"):
        attack(run, "typo", **{**settings, "judge": "auto"})
    with pytest.raises(RunError, match="Cannot read"):
        replay(tmp_path / "typo.json", judge=judge, backbone=tiny_model)


def test_log_of_other_settings_is_overwritten(tmp_path):
    path = tmp_path / "a.jsonl"
    erased = Query("erased", "cat", "", "cat")
    first = QueryLog(path, {"seed": 0})
    first.add(erased, [1, 2], [JudgedImage("cat", 0.9), JudgedImage("dog", 0.2)], role="search")
    first.add(erased, [4], [JudgedImage(None, 0.0)], role="search")
    assert first.find(erased, [4]) == [JudgedImage(None, 0.0)]
    same = QueryLog(path, {"seed": 0})
    assert same.find(erased, [2, 1]) == [JudgedImage("dog", 0.2), JudgedImage("cat", 0.9)]
    assert same.find(erased, [4]) is None  # what could not be generated is tried again
    assert same.find(erased, [1, 3]) is None
    assert same.find(Query("base", "cat", "", "cat"), [1]) is None
    other = QueryLog(path, {"seed": 1})
    assert other.find(erased, [1]) is None
    assert len(path.read_text().splitlines()) == 1


def test_log_has_the_lines_that_earlier_versions_wrote(tmp_path):
    log = QueryLog(tmp_path / "a.jsonl", {"seed": 0})
    log.add(Query("erased", "cat", "", "cat"), [1], [JudgedImage("cat", 0.9)], role="search", attack="typo")
    assert log.path.read_text().splitlines() == [
        '{"made_of": {"seed": 0}}',
        '{"role": "search", "attack": "typo", "model": "erased", "text": "cat", "state": "", "expected": "cat", '
        '"seeds": [1], "words": ["cat"], "probabilities": [0.9]}',
    ]


def test_attacks_on_a_run_share_plain_images_and_nothing_else(tmp_path):
    plain: dict = {}
    one, other = (QueryLog(tmp_path / name, {}, plain) for name in ("a.jsonl", "b.jsonl"))
    text, weights = Query("base", "cat", "", "cat"), Query("erased", "cat", "step-5", "cat")
    one.add(text, [1], [JudgedImage("cat", 0.9)])
    one.add(weights, [1], [JudgedImage("cat", 0.9)])
    assert other.find(text, [1]) == [JudgedImage("cat", 0.9)]
    assert other.find(weights, [1]) is None


def test_victim_counts_what_it_spends(run, tiny_model, judge):
    from crce.training import apply_adapter

    adapter = apply_adapter(tiny_model, run.adapter)
    victim = Victim(tiny_model, adapter, judge, QueryLog(None, {}), 0, [1], [2], steps=2, guidance=4.0)
    victim.query(["cat", "a cat"], [1, 2], "cat")
    adapter.close()
    assert vars(victim.spent) == {"text": 4, "denoiser": 4 * 2 * 2, "pictures": 4}
