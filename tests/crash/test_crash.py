"""Killed, doubled and cramped verbs go on to the end that they have undisturbed."""

from __future__ import annotations

import os

import pytest
from crash import Crashes


pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed in children made by fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def crashes(demo_backbone, tmp_path_factory) -> Crashes:
    return Crashes(tmp_path_factory.mktemp("crashes"), demo_backbone)


@pytest.mark.parametrize("seed", range(118544, 118556))  # every verb, and every trouble, the cheap ones more often
def test_a_disturbed_verb_ends_as_an_undisturbed_one(crashes, seed):
    """More of them: python tests/crash/crash.py 500"""
    crashes.case(seed)
