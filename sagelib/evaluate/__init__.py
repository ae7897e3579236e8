"""Evaluation of a trained network: accuracy, attacks, corruptions, calibration, few-shot."""
from .accuracy import correct, scores

__all__ = ["correct", "scores"]
