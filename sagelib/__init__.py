"""sagelib: saliency-guided image mixing in PyTorch, as small as the paper's equations.

    from sagelib import SAGE
    mix = SAGE(num_classes=10).bind(model)
    x, y = mix(x, target)
"""
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sagelib")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0+unknown"

__all__ = ["SAGE", "CoMixup", "CutMix", "DropIn", "ManifoldMixup", "Mixup", "PuzzleMix", "SaliencyMix"]


def __getattr__(name):
    """The drop-in classes, imported when they are asked for: a tool that needs no torch does not wait for it."""
    if name in __all__:
        from . import drop_in
        return getattr(drop_in, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
