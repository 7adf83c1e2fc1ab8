"""The fixtures of the world of four colours."""

from colour_world import backbone, erasure, judge, kitties, model, scored


__all__ = ["backbone", "erasure", "judge", "kitties", "model", "scored"]
