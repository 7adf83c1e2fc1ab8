"""Layer presets on a real UNet."""

from __future__ import annotations

import pytest

from crce.backbones import UNetBackbone
from crce.backbones.scopes import SCOPES, scope_modules
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
    paths = scope_modules(tiny_backbone.network, scope)
    assert {path.split(f"{attention}.")[1] for path in paths} == endings
    blocks = sum(name.endswith(attention) for name, _ in tiny_backbone.network.named_modules())
    assert len(paths) == blocks * len(endings)


def test_noxattn_and_xattn_share_nothing_and_leave_out_only_time_and_output(tiny_backbone: UNetBackbone):
    network = tiny_backbone.network
    xattn, noxattn, full = (set(scope_modules(network, scope)) for scope in ("xattn", "noxattn", "full"))
    assert not xattn & noxattn
    assert {path.split(".")[0] for path in full - xattn - noxattn} == {"time_embedding", "conv_out"}


def test_every_preset_has_a_description_and_layers(tiny_backbone: UNetBackbone):
    assert all(SCOPES[scope] and scope_modules(tiny_backbone.network, scope) for scope in SCOPES)


def test_an_unknown_preset_names_the_known_ones(tiny_backbone: UNetBackbone):
    with pytest.raises(ConfigError, match="'xattn-strict'.*qk, kv, xattn"):
        scope_modules(tiny_backbone.network, "xattn-strict")
