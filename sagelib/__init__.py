"""sagelib: saliency-guided image mixing in PyTorch, as small as the paper's equations.

    from sagelib import SAGE
    mix = SAGE(num_classes=10).bind(model)
    x, y = mix(x, target)
"""
from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors: at run time they are imported when they are asked for
    from .method import Method, Mixed
    from .mixer import (
        SAGE,
        CoMixup,
        CutMix,
        ManifoldMixup,
        Mixer,
        Mixup,
        PuzzleMix,
        RMix,
        SaliencyMix,
        TransMix,
    )

try:
    __version__ = version("sagelib")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0+unknown"

__all__ = [
    "SAGE", "CoMixup", "CutMix", "ManifoldMixup", "Method", "Mixed", "Mixer", "Mixup", "PuzzleMix",
    "RMix", "SaliencyMix", "TransMix"
]


def __getattr__(name: str) -> Any:
    """A name of `__all__`, imported at its first use: other tools do not wait for torch."""
    if name in ("Method", "Mixed"):
        from . import method
        return getattr(method, name)
    if name in __all__:
        from . import mixer
        return getattr(mixer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
