"""Closed forms on transformers: which states stand for which, what an edit does to layers, and what is read for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_families
import torch
from safetensors.torch import load_file, save_file

from crce.backbones import load_backbone, text_side
from crce.backbones.scopes import state_layers
from crce.concepts import ConceptSet, Related
from crce.errors import ModelError
from crce.export import export
from crce.methods import load_method
from crce.methods.closed_form import sums
from crce.methods.mace import end_of_words
from crce.methods.objective import Row
from crce.training import apply_adapter, erase, load_config
from crce.training.state_rows import GROWTH, LONG, _aligned, _inputs, _merged, _paired, _token_ids, closed_form_rows


CATS = ConceptSet("cat", anchor="dog", corefs=(Related("mew", 1.0),), retains=(Related("ox", 1.0),))
EXACT = {"method": "uce", "ridge": 1e-3, "state_guidance": 0.0}
CHATTING = ("z_image", "flux2_klein", "qwen_image")  # their text encoders are language models
FAMILIES = ("flux_dev", "sd3", *CHATTING)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Tiny pipelines by family, the weights of their transformers in several files."""
    made = {}
    for name in FAMILIES:
        folder = tiny_families.saved(name, tmp_path_factory.mktemp(name))
        for words in folder.glob("tokenizer_2/tokenizer_config.json"):  # as many as FLUX.1 pads to
            words.write_text(json.dumps(json.loads(words.read_text()) | {"model_max_length": 512}))
        network = load_backbone(str(folder), device="cpu").network
        for file in (folder / "transformer").glob("*.safetensors"):
            file.unlink()
        network.save_pretrained(folder / "transformer", max_shard_size="40KB")
        made[name] = folder
    return made


def answers(backbone, prompts: list[str]) -> dict[str, torch.Tensor]:
    """What the edited layers of FLUX answer to prompts, with their biases, each of shape (B, L, C)."""
    cond, network = backbone.encode(prompts), backbone.network
    pooled = network.time_text_embed.text_embedder.linear_1(cond.pooled)[:, None]
    return {"hidden": network.context_embedder(cond.hidden), "pooled": pooled}


@torch.no_grad()
def test_uce_answers_the_target_like_the_anchor_keeps_the_retain_and_adds_the_bias_once(folders, tmp_path):
    backbone = load_backbone(str(folders["flux_dev"]), device="cpu")
    for path in state_layers(backbone.network, type(backbone)):
        backbone.network.get_submodule(path).bias.fill_(3.0)  # a second one would be far more than the tolerance
    before = answers(backbone, ["cat", "dog", "ox"])
    run = erase(CATS, config=load_config(None, EXACT), backbone=backbone, out=tmp_path / "run")
    adapter = apply_adapter(backbone, run.adapter)
    after = answers(backbone, ["cat", "dog", "ox"])
    adapter.close()
    for name, (cat, dog, ox) in before.items():
        moved, _, kept = after[name]
        apart = (cat - dog).norm()
        words = slice(4)  # three letters and what ends them, which are not merged as the padding is
        assert (moved - dog)[words].norm() < 0.01 * (cat - dog)[words].norm(), name
        assert (moved - dog).norm() < 0.25 * apart, name
        assert (kept - ox).norm() < 0.1 * apart, name
        assert torch.equal(answers(backbone, ["cat", "dog", "ox"])[name], before[name])


@torch.no_grad()
@pytest.mark.parametrize("name", CHATTING)
def test_words_in_a_chat_template_are_answered_word_by_word(folders, name, tmp_path):
    """A language model's state tells of its own token and those before it, so that states show where a word begins."""
    backbone = load_backbone(str(folders[name]), device="cpu")
    if name == "qwen_image":  # before the prompt its template has 34 tokens of the published tokenizer
        assert backbone.unread_tokens == backbone.pipe.prompt_template_encode_start_idx == 34
        backbone.pipe.prompt_template_encode = "i" * 34 + "{}ok"
    ((path, source),) = state_layers(backbone.network, type(backbone)).items()
    prompts = ["old cat", "old fox", "ox"]
    cond = backbone.encode(prompts)
    tokens = [own for (own,) in _token_ids(backbone, prompts, cond)]
    states = _inputs(backbone, cond, source)
    assert [len(own) for own in tokens] == [len(own) for own in states]
    cat, fox, ox = tokens
    begins = next(i for i in range(len(cat)) if cat[i] != fox[i])
    assert torch.equal(states[0][:begins], states[1][:begins])
    assert not torch.allclose(states[0][begins], states[1][begins])
    layer = backbone.network.get_submodule(path)
    before = [layer(own) for own in states]
    config = load_config(None, EXACT)
    concepts = ConceptSet("old cat", anchor="old fox", retains=CATS.retains)
    run = erase(concepts, config=config, backbone=backbone, out=tmp_path / "run")
    adapter = apply_adapter(backbone, run.adapter)
    after = [layer(own) for own in states]
    adapter.close()
    word, words = slice(begins, begins + 3), slice(end_of_words(ox))
    assert (after[0] - before[1])[word].norm() < 0.1 * (before[0] - before[1])[word].norm()
    assert (after[2] - before[2])[words].norm() < 0.1 * before[2][words].norm()


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_read_in_part_is_edited_like_what_is_loaded_whole(folders, name, tmp_path, monkeypatch):
    settings = {"config": load_config(None, {"method": "uce"}), "device": "cpu"}
    whole = erase(CATS, model=str(folders[name]), out=tmp_path / "whole", **settings)
    assert whole.info["loaded"] == "whole"  # it is small
    monkeypatch.setattr(text_side, "SMALL", 0)
    part = erase(CATS, model=str(folders[name]), out=tmp_path / "part", **settings)
    assert part.info["loaded"] == "text side"
    one, two = load_file(whole.adapter), load_file(part.adapter)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    lora = export(part, to="diffusers", out=tmp_path / "lora.safetensors")  # which needs the same layers of the base
    assert lora.error < 1e-2


def test_other_tensors_are_not_read_and_a_missing_one_is_named(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(text_side, "SMALL", 0)
    folder = folders["z_image"]
    backbone = load_backbone(str(folder), device="cpu", parts=text_side.text_side_parts)
    weights = dict(backbone.network.named_parameters())
    read = {name for name, tensor in weights.items() if not tensor.is_meta}
    assert read == {"cap_embedder.0.weight", "cap_embedder.1.weight", "cap_embedder.1.bias"}
    assert all(p.is_meta for p in backbone.pipe.vae.parameters())
    index = folder / "transformer" / f"{text_side.FILE}.index.json"
    table = json.loads(index.read_text())
    broken = tmp_path / "broken"
    (broken / "transformer").mkdir(parents=True)
    for part in folder.iterdir():
        if part.name != "transformer":
            (broken / part.name).symlink_to(part)
    (broken / "transformer" / "config.json").symlink_to(folder / "transformer" / "config.json")
    file = table["weight_map"]["cap_embedder.1.weight"]
    kept = load_file(folder / "transformer" / file)
    save_file(
        {name: tensor for name, tensor in kept.items() if name != "cap_embedder.1.weight"},
        broken / "transformer" / file,
    )
    for name in {table["weight_map"][own] for own in read} - {file}:
        (broken / "transformer" / name).symlink_to(folder / "transformer" / name)
    (broken / "transformer" / index.name).write_text(index.read_text())
    with pytest.raises(ModelError, match=r"damaged: transformer\.cap_embedder\.1\.weight is missing"):
        load_backbone(str(broken), device="cpu", parts=text_side.text_side_parts)


def test_long_padding_is_merged_with_the_weight_of_its_states():
    length, words = 512, 3
    tokens = [5, 6, 1, *[0] * (length - words)]  # two words, what ends them, padding
    own, other, sizes = _paired([tokens], [[5, 1, *[0] * (length - 2)]], False)
    assert own == list(range(length))
    assert other == [0, 1, *range(1, length - 1)]  # what ends the words, and the padding, belong together
    assert sizes[:words] == [1] * words
    assert sizes[words:] == [1, GROWTH, GROWTH**2, GROWTH**3, GROWTH**4, length - words - 341]
    assert _paired([tokens[:LONG]], [tokens[:LONG]], False)[2] == [1] * LONG  # few are not merged
    generator = torch.Generator().manual_seed(0)
    alike = torch.randn(len(sizes), 4, generator=generator).repeat_interleave(torch.tensor(sizes), 0)
    merged, whole = (Row(states, states, 2.0) for states in (_merged(alike, own, sizes), alike))
    assert len(merged.prompt) == len(sizes)
    torch.testing.assert_close(sums([merged]), sums([whole]), rtol=1e-5, atol=1e-4)
    answer = torch.randn(1, 4, generator=generator).expand(length, 4)
    erased = replace(merged, source=_merged(answer, other, sizes))
    torch.testing.assert_close(sums([erased]), sums([replace(whole, source=answer)]), rtol=1e-5, atol=1e-4)


def test_prompts_of_other_lengths_are_aligned_from_both_ends():
    # <user> old cat <end>  |  <user> <end>: what is too many is answered like the first token that differs
    assert _aligned([1, 50, 51, 2, 3], [1, 2, 3], 5, 3) == [(0, 0), (1, 1), (2, 1), (3, 1), (4, 2)]
    assert _aligned([1, 2, 3], [1, 50, 51, 2, 3], 3, 5) == [(0, 0), (1, 3), (2, 4)]
    assert _aligned([1, 50, 2, 3], [1, 60, 2, 3], 4, 4) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert _aligned([7, 1, 0, 0], [1, 0, 0, 0], 4, 4) == [(0, 0), (1, 1), (2, 2), (3, 3)]  # by position
    assert _aligned([7, 8, 1, 0], [1, 0, 0, 0], 3, 1) == [(0, 0), (1, 0), (2, 0), (3, 1)]  # by where words end


def test_the_states_of_two_encoders_are_paired_each_for_itself(folders):
    backbone = load_backbone(str(folders["sd3"]), device="cpu")
    rows = closed_form_rows(backbone, [CATS], load_method("mace"), load_config(None, {"method": "mace"}))
    assert list(rows) == ["hidden"]  # pooled states have no words around the phrase
    own = backbone.encode(["a photo of cat"]).hidden[0]
    row = rows["hidden"].erase[1]
    assert torch.equal(row.prompt[:4], own[:4])  # of CLIP, from the beginning
    begins = next(i for i in range(len(row.prompt)) if torch.equal(row.prompt[i], own[16]))
    assert begins < 16  # of T5, whose first state is the seventeenth
    assert torch.equal(row.prompt[begins + 3], own[19])
