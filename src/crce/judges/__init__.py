"""Judges: who says what a picture shows. See `crce.judges.judge` for what a judge is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.judges.classifier import ClassifierJudge
    from crce.judges.clip import ClipJudge
    from crce.judges.emoji import EmojiJudge, EmojiNetwork
    from crce.judges.face import FaceJudge
    from crce.judges.judge import (
        CalibratedJudge,
        Detector,
        FeatureJudge,
        JointJudge,
        Judge,
        OpenJudge,
        TextJudge,
    )
    from crce.judges.nudenet import NudenetJudge
    from crce.judges.style import StyleJudge
    from crce.judges.table import JUDGES, is_known, load_judge, own_judge
    from crce.judges.vision import VisionJudge

__all__ = [
    "JUDGES",
    "CalibratedJudge",
    "ClassifierJudge",
    "ClipJudge",
    "Detector",
    "EmojiJudge",
    "EmojiNetwork",
    "FaceJudge",
    "FeatureJudge",
    "JointJudge",
    "Judge",
    "NudenetJudge",
    "OpenJudge",
    "StyleJudge",
    "TextJudge",
    "VisionJudge",
    "is_known",
    "load_judge",
    "own_judge",
]

__getattr__ = lazy_names(
    __name__,
    {
        "JUDGES": "table",
        "CalibratedJudge": "judge",
        "ClassifierJudge": "classifier",
        "ClipJudge": "clip",
        "Detector": "judge",
        "EmojiJudge": "emoji",
        "EmojiNetwork": "emoji",
        "FaceJudge": "face",
        "FeatureJudge": "judge",
        "JointJudge": "judge",
        "Judge": "judge",
        "NudenetJudge": "nudenet",
        "OpenJudge": "judge",
        "StyleJudge": "style",
        "TextJudge": "judge",
        "VisionJudge": "vision",
        "is_known": "table",
        "load_judge": "table",
        "own_judge": "table",
    },
)
