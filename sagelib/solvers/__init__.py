"""Exact solvers that the baselines need: minimum cuts, labellings of a grid, transport and
assignment."""
