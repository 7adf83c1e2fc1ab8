"""Plugins of crce for other programs."""
