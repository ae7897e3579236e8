"""Pickles of numpy arrays, dicts, lists, text and numbers, opened without executing what else they may hold."""
import collections
import pickle

import numpy as np

# what a pickled array asks for by name, under numpy's old and new addresses
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
_FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
ALLOWED = {
    ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
    **{("collections", kind): getattr(collections, kind) for kind in ("OrderedDict", "defaultdict")},
    **{(builtin, "list"): list for builtin in ("builtins", "__builtin__")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _SCALAR for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FROM_BUFFER for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):  # how Python 2's protocols write bytes
            return _encode
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data needs")
        return ALLOWED[module, name]


def _encode(text, encoding):
    return text.encode("latin1" if encoding in ("latin1", "latin-1") else "ascii")


def load_arrays(file):
    """The dict in a pickle file. ValueError if it is damaged, or asks for anything but plain data."""
    try:
        with open(file, "rb") as opened:
            found = _Unpickler(opened, encoding="latin1").load()
    except Exception as error:  # a damaged pickle fails in many ways
        raise ValueError(f"the pickle {file} is not opened ({error or type(error).__name__}): get the file again from "
                         "where you trust it") from error
    if not isinstance(found, dict):
        raise ValueError(f"the pickle {file} holds a {type(found).__name__}, not a dict of pictures and classes")
    return found
