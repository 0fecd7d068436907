"""Measurements: each module is a program, run as ``python -m ocm.bench.NAME``. No test depends on their figures."""
