"""Layer presets on real denoisers of every family."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import tiny_families
from torch import nn

from crce.backbones.families import backbone_class
from crce.backbones.scopes import SCOPES, scope_modules
from crce.backbones.unet import UNetBackbone
from crce.config import ErasureConfig
from crce.errors import ConfigError


@pytest.mark.parametrize(
    ("scope", "attention", "endings"),
    [
        ("qk", "attn2", {"to_q", "to_k"}),
        ("kv", "attn2", {"to_k", "to_v"}),
        ("xattn", "attn2", {"to_q", "to_k", "to_v", "to_out.0"}),
        ("selfattn", "attn1", {"to_q", "to_k", "to_v", "to_out.0"}),
    ],
)
def test_attention_presets_hold_exactly_their_layers(tiny_backbone: UNetBackbone, scope, attention, endings):
    paths = scope_modules(tiny_backbone, scope)
    assert {path.split(f"{attention}.")[1] for path in paths} == endings
    blocks = sum(name.endswith(attention) for name, _ in tiny_backbone.network.named_modules())
    assert len(paths) == blocks * len(endings)


def test_noxattn_and_xattn_share_nothing_and_leave_out_only_time_and_output(tiny_backbone: UNetBackbone):
    xattn, noxattn, full = (set(scope_modules(tiny_backbone, scope)) for scope in ("xattn", "noxattn", "full"))
    assert not xattn & noxattn
    assert {path.split(".")[0] for path in full - xattn - noxattn} == {"time_embedding", "conv_out"}


def test_every_preset_of_the_settings_has_layers(tiny_backbone: UNetBackbone):
    assert set(SCOPES) == set(get_args(ErasureConfig.model_fields["layers"].annotation))
    assert all(scope_modules(tiny_backbone, scope) for scope in SCOPES)


@pytest.mark.parametrize(
    ("pattern", "like"),
    [
        ("to_k,to_v", r".*\.to_[kv]"),
        ("attn2.to_q", r".*\.attn2\.to_q"),
        (r"mid_block\..*attn[12]\.to_[kv]", r"mid_block\..*attn[12]\.to_[kv]"),
    ],
)
def test_target_modules_are_names_or_a_regular_expression(tiny_backbone: UNetBackbone, pattern, like):
    paths = scope_modules(tiny_backbone, "qk", pattern)
    wanted = [name for name, _ in tiny_backbone.network.named_modules() if re.fullmatch(like, name)]
    assert paths == wanted
    assert wanted


@pytest.mark.parametrize(("pattern", "says"), [("to_z", "no layer of UNet2DCond"), ("to_(k", "no regular expression")])
def test_target_modules_that_fit_nothing_are_refused(tiny_backbone: UNetBackbone, pattern, says):
    with pytest.raises(ConfigError, match=says):
        scope_modules(tiny_backbone, "qk", pattern)


def test_an_unknown_preset_names_the_known_ones(tiny_backbone: UNetBackbone):
    with pytest.raises(ConfigError, match="'xattn-strict'.*qk, kv, xattn"):
        scope_modules(tiny_backbone, "xattn-strict")


def test_a_network_without_attention_has_no_such_layer(tiny_backbone: UNetBackbone, monkeypatch):
    monkeypatch.setattr(UNetBackbone, "network", nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ConfigError, match="layers is 'kv', but Sequential has no such layer. Try another preset"):
        scope_modules(tiny_backbone, "kv")


# By family and preset, what the paths of its layers must match as a whole; all that match are in it.
TEXT = r"transformer_blocks\.\d\.attn\.(add_{}_proj)"
TEXT_ALONE = (
    r"context_embedder|time_text_embed\.text_embedder\.linear_[12]|transformer_blocks\.\d\."
    r"(attn\.(add_[qkv]_proj|to_add_out)|ff_context\.net\.(0\.proj|2))"
)
EXPECTED = {
    "sd3": {
        "text": TEXT_ALONE,
        "qk": TEXT.format("[qk]"),
        "kv": TEXT.format("[kv]"),
        "xattn": TEXT.format("[qkv]") + r"|transformer_blocks\.\d\.(attn\.to_add_out|ff_context\..+)",
        "selfattn": r"transformer_blocks\.\d\.attn2?\.to_(q|k|v|out\.0)",
        "noxattn": r"transformer_blocks\.\d\.(attn2?\.to_(q|k|v|out\.0)|ff\..+)",
    },
    "flux_dev": {
        "text": TEXT_ALONE,
        "qk": TEXT.format("[qk]"),
        "kv": TEXT.format("[kv]"),
        "xattn": TEXT.format("[qkv]") + r"|transformer_blocks\.\d\.(attn\.to_add_out|ff_context\..+)",
        "selfattn": r"(single_)?transformer_blocks\.\d\.attn\.to_(q|k|v|out\.0)",
        "noxattn": r"(single_)?transformer_blocks\.\d\.(attn\.to_(q|k|v|out\.0)|ff\..+|proj_mlp|proj_out)",
    },
    "flux2_klein": {
        "qk": TEXT.format("[qk]"),
        "kv": TEXT.format("[kv]"),
        "xattn": TEXT.format("[qkv]") + r"|transformer_blocks\.\d\.(attn\.to_add_out|ff_context\..+)",
        "selfattn": r"transformer_blocks\.\d\.attn\.to_(q|k|v|out\.0)|single_transformer_blocks\..+",
        "noxattn": r"transformer_blocks\.\d\.(attn\.to_(q|k|v|out\.0)|ff\..+)|single_transformer_blocks\..+",
    },
    "qwen_image": {
        "qk": TEXT.format("[qk]"),
        "kv": TEXT.format("[kv]"),
        "xattn": TEXT.format("[qkv]") + r"|transformer_blocks\.\d\.(attn\.to_add_out|txt_mlp\..+)",
        "selfattn": r"transformer_blocks\.\d\.attn\.to_(q|k|v|out\.0)",
        "noxattn": r"transformer_blocks\.\d\.(attn\.to_(q|k|v|out\.0)|img_mlp\..+)",
    },
    "z_image": {
        "text": r"cap_embedder\.1|context_refiner\.\d\.(attention\.to_(q|k|v|out\.0)|feed_forward\.w[123])",
        "qk": r"layers\.\d\.attention\.to_[qk]",
        "kv": r"layers\.\d\.attention\.to_[kv]",
        "xattn": r"layers\.\d\.attention\.to_(q|k|v|out\.0)|context_refiner\..+",
        "selfattn": r"noise_refiner\.\d\.attention\.to_(q|k|v|out\.0)",
        "noxattn": r"noise_refiner\.\d\.(attention|feed_forward)\..+|layers\.\d\.feed_forward\..+",
    },
    "sdxl": {
        "text": r".+\.attn2\.to_[kv]",
        "kv": r".+\.attn2\.to_[kv]",
        "selfattn": r".+\.attn1\..+",
        "noxattn": r"(?!.*\.attn2\.)(?!time_embedding|add_embedding|conv_out).+",
    },
}


@pytest.mark.parametrize("family", EXPECTED)
def test_presets_hold_exactly_their_layers_in_every_family(family: str, tmp_path: Path):
    pipe = tiny_families.BUILDERS[family](tmp_path)
    backbone = backbone_class(type(pipe).__name__)(pipe, family)
    layers = [path for path, module in backbone.network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    # What SD 3 and Qwen-Image make of the text in their last block, no later layer reads.
    ends = {"sd3": ["attn.add_q_proj"], "qwen_image": ["attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.0.proj"]}
    ends["qwen_image"].append("txt_mlp.net.2")
    unused = {f"transformer_blocks.1.{end}" for end in ends.get(family, [])}
    assert set(layers) >= unused
    for scope, pattern in EXPECTED[family].items():
        expected = [path for path in layers if re.fullmatch(pattern, path) and path not in unused]
        assert scope_modules(backbone, scope) == expected
    found = {scope: set(scope_modules(backbone, scope)) for scope in SCOPES}
    assert found["full"] == set(layers) - unused
    assert found["qk"] | found["kv"] < found["xattn"]
    assert found["selfattn"] < found["noxattn"]
    assert not found["xattn"] & found["noxattn"]


# With text_tokens_only: what is shared beside the text's own; of the last block keys and values.
FIRST, LAST = r"single_transformer_blocks\.0\.({})", r"single_transformer_blocks\.1\.({})"
MASKED = [
    ("flux_dev", "kv", "|".join([TEXT.format("[kv]"), FIRST.format(r"attn\.to_[kv]"), LAST.format(r"attn\.to_[kv]")])),
    (
        "flux_dev",
        "text",
        "|".join([TEXT_ALONE, FIRST.format(r"attn\.to_[qkv]|proj_mlp|proj_out"), LAST.format(r"attn\.to_[kv]")]),
    ),
    ("z_image", "qk", r"layers\.0\.attention\.to_[qk]|layers\.1\.attention\.to_k"),
]


@pytest.mark.parametrize(("family", "scope", "pattern"), MASKED)
def test_with_text_tokens_only_what_text_and_image_share_counts_as_the_texts(family, scope, pattern, tmp_path: Path):
    pipe = tiny_families.BUILDERS[family](tmp_path)
    backbone = backbone_class(type(pipe).__name__)(pipe, family)
    layers = [path for path, module in backbone.network.named_modules() if isinstance(module, nn.Linear)]
    found = scope_modules(backbone, scope, text_tokens_only=True)
    assert found == [path for path in layers if re.fullmatch(pattern, path)]
    with pytest.raises(ConfigError, match="reads the image alone. Use layers qk, kv, xattn or text"):
        scope_modules(backbone, "noxattn", text_tokens_only=True)


def test_text_tokens_only_is_refused_where_nothing_is_shared(tiny_backbone: UNetBackbone):
    with pytest.raises(ConfigError, match="text and image share, and UNet2DConditionModel has none among these"):
        scope_modules(tiny_backbone, "kv", text_tokens_only=True)
