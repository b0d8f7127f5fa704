"""Benchmarks: ratios between a floor and a subject, taken in one run."""
