"""The benchmark: records of runs, tables and verdicts from them, timing, and sweeps that run what
is missing.

The only part of sagelib that knows where the repository is (`paths.py`); nothing outside imports
it.
"""
