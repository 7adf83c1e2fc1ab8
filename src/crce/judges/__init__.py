"""Judges: classifiers, detectors and vision models that say what an image shows (see `crce.judges.judge`)."""

from crce.judges.judge import CalibratedJudge, Detector, FeatureJudge, JointJudge, Judge, OpenJudge, TextJudge
from crce.judges.table import JUDGES, choose_judge, is_known, load_judge


__all__ = ["JUDGES", "CalibratedJudge", "Detector", "FeatureJudge", "JointJudge", "Judge", "OpenJudge", "TextJudge"]
__all__ += ["choose_judge", "is_known", "load_judge"]
