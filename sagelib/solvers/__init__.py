"""Exact solvers for the baselines: minimum cut, labelling of a grid, transport and assignment."""
