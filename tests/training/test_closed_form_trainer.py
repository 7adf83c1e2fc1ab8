"""Runs of closed-form methods: one step, the run folder of any other run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from edited_run import edit_run
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from crce.concepts import ConceptSet, atlas, find_concepts
from crce.errors import ConfigError, CRCEError
from crce.methods import METHODS, load_method
from crce.training import apply_adapter, erase, load_config, resume
from crce.training.closed_form_trainer import ClosedFormTrainer
from crce.training.prompts import everyday_words
from crce.training.state_rows import closed_form_rows


SOLVED = [name for name in METHODS if METHODS[name].solved]


def run(backbone, concepts, out, **settings):
    return erase(concepts, config=load_config(None, settings), backbone=backbone, out=out)


@pytest.mark.parametrize("method", SOLVED)
@pytest.mark.parametrize("crce", [True, False])
def test_a_run_edits_what_reads_the_text_and_nothing_else(tiny_backbone, cats, tmp_path, method, crce):
    before = {name: p.detach().clone() for name, p in tiny_backbone.network.named_parameters()}
    finished = run(tiny_backbone, cats, tmp_path / "run", method=method, crce=crce)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert all(line[term] == line[term] and abs(line[term]) < 1e6 for term in ("target", "coref", "retain"))
    assert (line["coref"] > 0) == crce
    assert all(torch.equal(p, before[name]) for name, p in tiny_backbone.network.named_parameters())
    adapter = apply_adapter(tiny_backbone, finished.adapter)
    try:
        for name, p in tiny_backbone.network.named_parameters():
            edited = name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
            assert torch.equal(p, before[name]) != edited, name
    finally:
        adapter.close()


@pytest.mark.parametrize("method", SOLVED)
def test_weights_that_are_not_finite_are_not_written(tiny_backbone, cats, tmp_path, method):
    for weights in tiny_backbone.pipe.text_encoder.parameters():
        weights.data.fill_(float("nan"))
    with pytest.raises(CRCEError, match="can't solve for the weights|stopped at step 1, at which the loss is nan"):
        run(tiny_backbone, cats, tmp_path / "run", method=method)
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


@pytest.mark.parametrize("extreme", [{"alpha": 0.0, "beta": 1e6}, {"alpha": 1e6, "beta": 0.0}])
@pytest.mark.parametrize("method", SOLVED)
def test_every_allowed_number_gives_finite_weights_or_one_error(tiny_backbone, cats, tmp_path, method, extreme):
    own = {"uce": "ridge", "mace": "ridge", "rece": "ridge", "speed": "speed_retain_scale"}[method]
    for value in (1e-9, 1e6):
        try:
            done = run(tiny_backbone, cats, tmp_path / f"{value}", method=method, **extreme, **{own: value})
        except CRCEError:
            continue
        assert all(bool(weights.isfinite().all()) for weights in load_file(done.adapter).values())


def test_rows_carry_certainty_and_roles(tiny_backbone, cats):
    config = load_config(None, {"method": "uce", "alpha": 2.0, "beta": 3.0, "state_guidance": 0.0})
    rows = closed_form_rows(tiny_backbone, [cats], load_method("uce"), config)["hidden"]
    assert [row.weight for row in rows.erase] == pytest.approx([1, 2, 1.6, 1.2, 0.8])
    assert [row.weight for row in rows.keep] == pytest.approx([3, 2.4, 1.5])
    assert [row.role for row in rows.erase] == ["target", *["coref"] * 4]
    null = tiny_backbone.encode([""]).hidden[0]
    assert all(torch.allclose(row.source, null, atol=1e-5) for row in rows.erase)
    assert all(row.source is row.prompt for row in rows.keep)
    dogs = ConceptSet("dog", anchor="pet")
    both = closed_form_rows(tiny_backbone, [cats, dogs], load_method("uce"), config)["hidden"]
    assert len(both.erase) == 6
    assert len(both.keep) == 2  # dog is erased, so it is no longer kept
    torch.testing.assert_close(both.erase[-1].source, tiny_backbone.encode(["pet"]).hidden[0])


def test_state_guidance_answers_what_is_erased_beyond_its_base_and_only_with_crce(tiny_backbone, cats):
    def read(**own):
        config = load_config(None, {"method": "uce", "everyday": 0.0, "state_guidance": 0.5, **own})
        return closed_form_rows(tiny_backbone, [cats], load_method("uce"), config)["hidden"]

    null = tiny_backbone.encode([""]).hidden[0]
    for row in read().erase:
        torch.testing.assert_close(row.source, null + 0.5 * (null - row.prompt), rtol=1e-4, atol=1e-5)
    assert all(row.source is row.prompt for row in read().keep)
    assert all(torch.allclose(row.source, null, atol=1e-5) for row in read(crce=False).erase)


def test_the_rounds_of_rece_take_back_nothing_that_uce_has_erased(demo_backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("crce.training.state_rows.EVERYDAY", 300)  # as outside of tests
    left = {}
    for method in ("uce", "rece"):
        run(demo_backbone, find_concepts("dog"), tmp_path / method, method=method)
        left[method] = json.loads((tmp_path / method / "metrics.jsonl").read_text())
    for term in ("target", "coref"):
        assert left["rece"][term] < left["uce"][term]


def test_everyday_words_are_held_beside_the_retains_and_are_none_of_what_goes(demo_backbone, cats):
    config = load_config(None, {"method": "uce", "everyday": 60.0})
    rows = closed_form_rows(demo_backbone, [cats], load_method("uce"), config)["hidden"]
    assert sum(row.weight for row in rows.everyday) == pytest.approx(60)
    plain = load_config(None, {"method": "uce", "everyday": 60.0, "crce": False})
    assert closed_form_rows(demo_backbone, [cats], load_method("uce"), plain)["hidden"].everyday == ()
    words = everyday_words(demo_backbone, [cats], 300)
    assert len(words) == len(set(words)) == 300
    assert not [word for word in words if word.startswith(("cat", "kitty", "feline"))]
    assert all(demo_backbone.pipe.tokenizer.tokenize(word) == [word] for word in words)


def test_everyday_words_are_held_where_a_target_stands(tiny_backbone, cats):
    """Each in one template of the target, the same whatever words are beside it."""
    config = load_config(None, {"method": "mace", "everyday": 60.0})
    mace = load_method("mace")

    def held(*words: str) -> list[torch.Tensor]:
        rows = closed_form_rows(tiny_backbone, [cats], mace, config, words)["hidden"].everyday
        return [row.prompt for row in rows]

    words = ("tree", "river", "forest", "sun")
    expected = [template.format(word) for template, word in zip(mace.templates, words, strict=True)]
    assert all(map(torch.equal, held(*words), tiny_backbone.encode(expected).hidden))
    assert torch.equal(held("river")[0], held(*words)[1])


@pytest.mark.parametrize(("word", "piece"), [("{}</w>", "{}"), ("▁{}", "{}"), ("Ġ{}", "{}"), ("{}", "##{}")])
def test_everyday_words_are_no_pieces_of_words(cats, word, piece):
    tokens = [mark.format(text) for text, mark in {"ing": piece, "tree": word, "ous": piece, "river": word}.items()]
    tokens += [word.format(text) for text in ("cats", "stone", "moss", "rare", "rarer")]  # half are common
    vocabulary = Tokenizer(WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="tree"))
    backbone = SimpleNamespace(pipe=SimpleNamespace(tokenizer=vocabulary))
    assert everyday_words(backbone, [cats], 300) == ["tree", "river"]


def test_rows_of_mace_leave_out_the_phrase_itself(demo_backbone):
    config = load_config(None, {"method": "mace", "crce": False})
    method = load_method("mace")
    rows = closed_form_rows(demo_backbone, [ConceptSet("cat", anchor="dog")], method, config)["hidden"]
    assert len(rows.erase) == len(method.templates)
    assert sum(row.weight for row in rows.erase) == pytest.approx(1.0)
    cat = demo_backbone.encode(["a photo of cat"]).hidden[0]
    dog = demo_backbone.encode(["a photo of dog"]).hidden[0]
    words = demo_backbone.pipe.tokenizer("a photo of cat").input_ids
    kept = [i for i in range(len(cat)) if i != len(words) - 2]  # all but the word before the one that ends it
    row = rows.erase[method.templates.index("a photo of {}")]
    torch.testing.assert_close(row.prompt, cat[kept])
    torch.testing.assert_close(row.source, dog[kept])


def test_mace_reads_the_target_in_sentences_and_corefs_alone(tiny_backbone, cats):
    config = load_config(None, {"method": "mace"})
    rows = closed_form_rows(tiny_backbone, [cats], load_method("mace"), config)["hidden"]
    sentences = len(load_method("mace").templates)
    assert [row.role for row in rows.erase] == ["target"] * sentences + ["coref"] * 4
    assert [row.weight for row in rows.erase] == pytest.approx([1 / sentences] * sentences + [1, 0.8, 0.6, 0.4])
    for ref, row in zip(cats.train_corefs, rows.erase[sentences:], strict=True):
        phrase = tiny_backbone.encode([ref.text]).hidden[0]
        assert torch.allclose(row.prompt[0], phrase[0], atol=1e-5)
        assert torch.allclose(row.prompt[-1], phrase[-1], atol=1e-5)
        assert len(row.prompt) < len(phrase)  # the words of the coref itself are left out


def test_the_target_is_answered_like_the_anchor_and_retains_as_before(tiny_backbone, cats, tmp_path):
    run(tiny_backbone, cats, tmp_path / "run", method="uce", ridge=1e-4)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert line["target"] < 0.05
    assert line["retain"] < 0.05


def saved(tiny_backbone, finished):
    adapter = apply_adapter(tiny_backbone, finished.adapter)
    state = adapter.state()
    adapter.close()
    return state


def test_the_same_edit_twice_is_the_same(tiny_backbone, cats, tmp_path):
    one, two = (saved(tiny_backbone, run(tiny_backbone, cats, tmp_path / n, method="speed")) for n in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("method", ["uce", "rece", "speed", "mace"])
def test_an_edit_after_another_is_the_edit_of_both(tiny_backbone, cats, ships, tmp_path, method):
    config = load_config(None, {"method": method})
    settings = {"config": config, "backbone": tiny_backbone}
    first = erase(ships, out=tmp_path / "first", **settings)
    later = saved(tiny_backbone, erase(cats, out=tmp_path / "later", start_from=first.folder, **settings))
    both = saved(tiny_backbone, erase([cats, ships], out=tmp_path / "both", **settings))
    alone = saved(tiny_backbone, erase(cats, out=tmp_path / "alone", **settings))
    assert all(torch.equal(later[name], tensor) for name, tensor in both.items())
    assert any(not torch.equal(later[name], tensor) for name, tensor in alone.items())


def test_a_run_that_was_killed_before_its_step_is_finished_by_resuming(tiny_backbone, cats, tmp_path):
    whole = run(tiny_backbone, cats, tmp_path / "whole", method="uce")
    run(tiny_backbone, cats, tmp_path / "killed", method="uce")
    edit_run(tmp_path / "killed", status="running", steps_done=0)
    (tmp_path / "killed" / "adapter.safetensors").unlink()
    again = resume(tmp_path / "killed", backbone=tiny_backbone)
    a, b = apply_adapter(tiny_backbone, whole.adapter), None
    expected = a.state()
    a.close()
    b = apply_adapter(tiny_backbone, again.adapter)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in b.state().items())
    b.close()


class Decompositions(TorchDispatchMode):
    """Counts the matrices that are decomposed or solved with: what a step costs besides products of matrices."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        words = ("_cholesky_ex", "_solve_ex", "_inv_ex", "_svd", "_eigh", "_pinv", "_lu_factor_ex", "_qr")
        self.count += func._schema.name.endswith(words)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("method", "decomposed"), [("uce", 1), ("mace", 1), ("rece", 3), ("speed", 1 + 14 * 4)])
def test_a_step_is_few_decompositions_however_many_concepts_and_no_forward(demo_backbone, method, decomposed):
    """What makes a step fast: two sums of all rows, one factor of them for all layers (SPEED: four for each)."""
    flops = []
    for sets in ([find_concepts("cat")], list(atlas().values())[:4]):
        trainer = ClosedFormTrainer(demo_backbone, sets, load_config(None, {"method": method}))
        forbidden = demo_backbone.network.register_forward_pre_hook(lambda *_: pytest.fail("the denoiser was run"))
        try:
            with Decompositions() as decompositions, FlopCounterMode(display=False) as products:
                trainer.step()
        finally:
            forbidden.remove()
            trainer.adapter.close()
        assert decompositions.count <= decomposed
        flops.append(products.get_total_flops())
    one, four = flops
    assert one < 15e9  # beside it there are 280 more everyday words, whose states take as much again
    assert four < 2.5 * one


def test_a_method_brings_its_recipe_and_refuses_settings_that_make_no_sense():
    config = load_config(None, {"method": "uce"})
    assert (config.steps, config.adapter, config.layers) == (1, "weights", "kv")
    assert load_config(None, {"method": "esd"}) == load_config("demo")
    with pytest.raises(ConfigError, match="uce computes the weights in one step. Use steps: 1, adapter: weights"):
        load_config("demo", {"method": "uce"})
    with pytest.raises(ConfigError, match="as the recipe 'speed' does"):
        load_config(None, {"method": "speed", "layers": "xattn"})
