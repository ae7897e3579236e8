"""The functions that build a Mixer: all of them, those that look at saliency, and the method of
each."""
from sagelib import SAGE, CoMixup, CutMix, ManifoldMixup, Mixup, PuzzleMix, SaliencyMix
from sagelib.methods import comixup, cutmix, manifold_mixup, mixup, puzzlemix, sage, saliencymix

METHOD = {
    SAGE: sage.Sage, Mixup: mixup.Mixup, CutMix: cutmix.CutMix,
    ManifoldMixup: manifold_mixup.ManifoldMixup, SaliencyMix: saliencymix.SaliencyMix,
    PuzzleMix: puzzlemix.PuzzleMix, CoMixup: comixup.CoMixup,
}
ALL = tuple(METHOD)
LOOK = (SAGE, PuzzleMix, CoMixup)
