"""The benchmark: records of runs, tables and verdicts, timing, and sweeps of missing runs.

The only part of sagelib that knows where the repository is (`paths.py`); nothing outside imports
it.
"""
