"""Prompt sets: of the run's concept sets, of public benchmarks, and of users' files."""
