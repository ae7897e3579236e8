"""Training: the paper's recipe, one visible loop, a step as a CUDA graph, checkpoints."""
from .loop import fit, fit_together
from .recipe import PRECISIONS, Recipe
from .step import Run, best_epoch

__all__ = ["PRECISIONS", "Recipe", "Run", "best_epoch", "fit", "fit_together"]
