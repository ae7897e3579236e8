"""sagelib: saliency-guided image mixing in PyTorch, as small as the paper's equations."""
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sagelib")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0+unknown"
