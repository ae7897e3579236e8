"""What tests of files share: data sets that are refused, and calls of the system that fail."""
import os

import pytest

from sagelib import datasets
from sagelib.catalog import load


def refused(root, message, kind=ValueError, name="folder", **options):
    """Assert that a data set in files, by default a folder of one's own, is one clear error."""
    with pytest.raises(kind, match=message) as caught:
        load(datasets, name, root=root, **options)
    assert "\n" not in str(caught.value)


def failing(number):
    """A function in place of one of the system that fails with this error number."""
    def call(*_, **__):
        raise OSError(number, os.strerror(number))
    return call
