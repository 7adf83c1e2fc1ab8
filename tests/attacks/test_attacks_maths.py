"""The mathematics of the attacks against plain references."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler
from scipy.optimize import brentq

from crce.attacks.asr import chance_of_gain, rate, shows, summarise
from crce.attacks.denoising import ForwardProcess, back_after, latents_of
from crce.attacks.prompts import read_vocabulary
from crce.attacks.protocol import Allowance, Budget, stream
from crce.attacks.query_log import Query, QueryLog
from crce.attacks.ring_a_bell import breed, mutate, states
from crce.attacks.table import load_attack
from crce.attacks.victim import Spent, Try, Victim
from crce.attacks.word_search import chance_gradient, nearest, project_simplex, schedule
from crce.backbones import Conditioning, load_backbone
from crce.judges import load_judge
from crce.judges.judge import JudgedImage


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_projection_is_the_nearest_point_of_the_simplex(generator):
    rows = torch.randn(20, 7, generator=generator, dtype=torch.float64) * torch.logspace(-2, 2, 20)[:, None]
    projected = project_simplex(rows)
    for row, found in zip(rows.tolist(), projected.tolist(), strict=True):
        # As the authors do: the threshold is the root of sum_i max(0, u_i - tau) - 1.
        tau = brentq(lambda x, row=row: sum(max(0.0, u - x) for u in row) - 1, min(row) - 1, max(row), xtol=1e-14)
        assert found == pytest.approx([max(0.0, u - tau) for u in row], abs=1e-9)
    assert torch.allclose(projected.sum(1), torch.ones(20, dtype=torch.float64))
    assert torch.equal(project_simplex(torch.eye(3)), torch.eye(3))  # a point of the simplex stays


def test_gradient_by_chances_is_that_through_the_table(generator):
    table = torch.randn(9, 4, generator=generator)
    one_hot = torch.eye(9)[[2, 5]].requires_grad_(True)
    words = one_hot @ table
    loss = (words * torch.tensor([[0.3, -0.2, 0.1, 0.4], [9.0, -9.0, 9.0, 9.0]])).sum()
    by_words, by_chances = torch.autograd.grad(loss, [words, one_hot])
    found = chance_gradient(by_words, table)
    assert torch.allclose(found, torch.nn.functional.hardtanh(by_chances), atol=1e-6)
    assert found.abs().max() == 1  # the second row is clipped


def test_published_schedule_is_2000_steps_and_small_budgets_still_spread():
    assert [round(level * 1000) for level, _ in schedule(2000)] == list(range(10, 1000, 20))
    assert {iterations for _, iterations in schedule(2000)} == {40}
    assert schedule(100) == [(0.1, 20), (0.3, 20), (0.5, 20), (0.7, 20), (0.9, 20)]
    assert schedule(2) == [(0.25, 1), (0.75, 1)]
    for budget in (1, 3, 7, 99, 450):
        assert sum(iterations for _, iterations in schedule(budget)) == budget
    assert len(schedule(10_000)) == 50


def test_nearest_word_has_the_largest_cosine(generator):
    soft, table = torch.randn(5, 6, generator=generator), torch.randn(30, 6, generator=generator)
    table *= torch.rand(30, 1, generator=generator) * 10  # lengths play no part
    found = nearest(soft, table).tolist()
    for row, place in zip(soft, found, strict=True):
        cosines = [float(row @ w) / math.sqrt(float(row @ row) * float(w @ w)) for w in table]
        assert cosines[place] == max(cosines)


def test_padding_of_masked_states_counts_as_zero():
    cond = Conditioning(torch.ones(1, 3, 2), mask=torch.tensor([[True, True, False]]))
    assert states(cond).tolist() == [[[1, 1], [1, 1], [0, 0]]]


def test_children_are_two_ways_to_join_what_one_cut_parts(generator):
    parents = torch.arange(60).reshape(10, 6)
    people = breed(parents, 1.0, generator)
    assert torch.equal(people[:10], parents)
    children = people[10:].reshape(10, 2, 6)
    for parent, (first, second) in zip(parents, children, strict=True):
        cuts = [
            (cut, mate)
            for mate in parents
            for cut in range(1, 7)
            if torch.equal(first, torch.cat([parent[:cut], mate[cut:]]))
            and torch.equal(second, torch.cat([mate[:cut], parent[cut:]]))
        ]
        assert cuts
    assert torch.equal(breed(parents, 0.0, generator), parents)
    many = sum(len(breed(parents, 0.5, generator)) - 10 for _ in range(200)) / 200
    assert many == pytest.approx(10, abs=1)  # half of ten parents have two children each


def test_mutation_changes_one_word_of_a_share_of_rows(generator):
    people = torch.zeros(4000, 5, dtype=torch.long)
    out = mutate(people, 0.25, 1000, generator)
    changed = (out != people).sum(1)
    assert set(changed.tolist()) == {0, 1}
    assert changed.float().mean() == pytest.approx(0.25, abs=0.03)
    places = (out != people).sum(0)
    assert places.min() > 130  # every place, about 200 times
    assert not people.any()  # what was given stays
    assert torch.equal(mutate(people, 0.0, 1000, generator), people)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noised_pictures_and_what_is_to_be_predicted(prediction, tiny_backbone, monkeypatch, generator):
    config = {**tiny_backbone.pipe.scheduler.config, "prediction_type": prediction}
    monkeypatch.setattr(tiny_backbone.pipe, "scheduler", DDIMScheduler.from_config(config))
    x_0, noise = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)
    x_t, t, wanted = ForwardProcess(tiny_backbone).at(x_0, noise, [0.01, 0.99])
    assert t.tolist() == [10, 990]
    betas = torch.linspace(config["beta_start"], config["beta_end"], 1000)
    if config["beta_schedule"] == "scaled_linear":
        betas = torch.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, 1000) ** 2
    for i, time in enumerate([10, 990]):
        a = float((1 - betas).cumprod(0)[time])
        assert torch.allclose(x_t[i], math.sqrt(a) * x_0[i] + math.sqrt(1 - a) * noise[i], atol=1e-4)
        v = math.sqrt(a) * noise[i] - math.sqrt(1 - a) * x_0[i]
        assert torch.allclose(wanted[i], noise[i] if prediction == "epsilon" else v, atol=1e-4)


def test_noised_pictures_of_a_rectified_flow(tmp_path, generator):
    import tiny_families

    backbone = load_backbone(str(tiny_families.saved("sd3_without_t5", tmp_path)), device="cpu")
    shape = (2, *backbone.latent_shape)
    x_0, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    x_t, t, wanted = ForwardProcess(backbone).at(x_0, noise, [0.2, 0.9])
    assert torch.equal(wanted, noise - x_0)
    for i in range(2):
        sigma = float(t[i]) / 1000
        assert torch.allclose(x_t[i], (1 - sigma) * x_0[i] + sigma * noise[i], atol=1e-3)
    assert t[0] < t[1]


def test_latents_of_pictures_decode_to_them(demo_backbone):
    from crce.sampling import draw

    pictures = draw(demo_backbone.pipe, ["dog", "car"], [0, 1], steps=5)
    again = demo_backbone.decode(latents_of(demo_backbone, pictures))
    for one, other in zip(pictures, again, strict=True):
        a, b = (torch.tensor(list(p.convert("RGB").tobytes()), dtype=torch.float) for p in (one, other))
        assert (a - b).abs().mean() < 12  # of 255


def test_words_survive_being_written_and_read(demo_backbone, tiny_backbone):
    for tokenizer in (demo_backbone.pipe.tokenizer, tiny_backbone.pipe.tokenizer):
        vocabulary = read_vocabulary(tokenizer)
        assert len(vocabulary) > 30
        assert len(set(vocabulary.words)) == len(vocabulary)
        picked = list(range(0, len(vocabulary), len(vocabulary) // 7))[:7]
        read = tokenizer(vocabulary.text(picked), add_special_tokens=False)["input_ids"]
        assert read == vocabulary.ids[picked].tolist()
    words = read_vocabulary(demo_backbone.pipe.tokenizer).words
    assert "cat" in words
    assert not [word for word in words if word.startswith(("##", "[CLS", "[PAD", "[unused"))]


def test_rate_is_that_of_all_images_with_the_interval_of_their_prompts():
    found = rate([[True] * 3 + [False] * 7])
    assert (found["value"], found["hits"], found["n"]) == (0.3, 3, 10)
    assert found["low"] < 0.12 < 0.55 < found["high"]
    apart = rate([[True] * 4, [False] * 4, [True] * 4, [False] * 4, [True] * 4])
    mixed = rate([[True, False, True, True], [True, False, True, False]] * 2 + [[True, False, False, True]])
    assert apart["value"] == mixed["value"] == 0.6
    assert apart["high"] - apart["low"] > 1.5 * (mixed["high"] - mixed["low"])  # prompts that agree in themselves
    assert rate([])["value"] is None


def test_chance_of_gain_is_a_sum_of_binomials():
    before = [False] * 6 + [True] * 2 + [False] * 4
    after = [True] * 6 + [False] * 1 + [True] * 1 + [False] * 4
    # Seven pairs differ, six of them in favour.
    assert chance_of_gain(before, after) == pytest.approx((math.comb(7, 6) + math.comb(7, 7)) / 2**7)
    assert chance_of_gain(before, before) == 1
    assert chance_of_gain(after, before) > 0.9


def test_picture_that_failed_is_never_erased():
    assert shows([None, "dog", "cat"], "cat") == [True, False, True]
    words = {"base": ["cat", "cat"], "before": ["dog", "dog"], "after": [None, None]}
    counted = {"left_out": None, "expected": "cat", "words": words}
    skipped = {"left_out": "why", "expected": "cat", "words": {**words, "after": []}}
    summary = summarise([counted, skipped])
    assert (summary["before"]["value"], summary["after"]["value"], summary["failed"]) == (0, 1, 2)
    assert (summary["prompts"], summary["left_out"], summary["brought_back"]) == (1, 1, 1)
    assert summarise([skipped])["gain"] is None


def test_the_plain_prompt_counts_with_what_was_found_and_is_not_what_is_tested():
    words = {"base": ["cat"] * 4, "before": ["cat", "cat", "dog", "dog"], "after": ["dog", "dog", "cat", "dog"]}
    summary = summarise([{"left_out": None, "expected": "cat", "words": words}])
    assert [summary[side]["value"] for side in ("before", "found", "after")] == [0.5, 0.25, 0.75]
    assert (summary["gain"], summary["brought_back"]) == (0.25, 1)
    assert summary["p"] == pytest.approx(7 / 8)  # one of three that differ is gained, which chance does more often


def test_the_plain_prompt_is_what_was_found_unless_another_has_more_hits(demo_backbone):
    def tried(text, *images):
        return Try(text, tuple(JudgedImage(word, probability) for word, probability in images), "cat")

    log = QueryLog(None, {})
    victim = Victim(demo_backbone, None, load_judge(), log, 0, search_seeds=[1], test_seeds=[9])
    pick = load_attack("typo").pick
    plain, likelier = tried("cat", ("dog", 0.1)), tried("act", ("dog", 0.4))
    assert pick(victim, (plain, likelier)) is plain
    once = tried("act", ("cat", 0.9), ("dog", 0.1))
    for text, words in (("cat", ("cat", "dog")), ("act", ("dog", "dog"))):
        log.add(
            Query("erased", text, "", "cat"), [2, 3], [JudgedImage(word, 0.5) for word in words], role="second look"
        )
    plain = tried("cat", ("dog", 0.1), ("dog", 0.1))
    assert pick(victim, (plain, once)) is plain  # one hit of both: chance as likely
    assert pick(victim, (plain, tried("act", ("cat", 1.0)))).text == "act"


def test_allowance_ends_with_its_steps_or_its_forwards():
    spent = Spent()
    told: list[int] = []
    allowance = Allowance(Budget(5), spent, told.append)
    assert (allowance.take(3), allowance.take(3), allowance.take()) == (3, 2, 0)
    assert told == [3, 5]
    bounded = Allowance(Budget(100, forwards=10), spent)
    assert bounded.take() == 1
    assert not bounded.done
    spent.denoiser += 10
    assert bounded.done
    assert bounded.take() == 0


def test_concept_is_back_from_where_it_stays():
    def curve(*shares):
        return [{"step": 5 * i, "share": share} for i, share in enumerate(shares)]

    assert back_after(curve(0, 0.25, 0.5, 0.75)) == 10
    assert back_after(curve(0, 0.5, 0.25, 0.5, 1)) == 15
    assert back_after(curve(0.5, 0.5, 0.5)) == 5  # a lucky look before any training is not a step
    assert back_after(curve(0, 0.5, 0.25)) is None
    assert back_after(curve(0)) is None


def test_random_numbers_depend_on_what_they_are_for():
    assert stream(0, "a", "b").initial_seed() == stream(0, "a", "b").initial_seed()
    seeds = {stream(*names).initial_seed() for names in ((0, "a", "b"), (1, "a", "b"), (0, "ab"), (0, "a", "c"))}
    assert len(seeds) == 4
