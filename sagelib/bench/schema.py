"""What makes a record valid: its schema, numbers that JSON has, and parts that agree with each
other."""

import base64
import functools
import json
import math
from pathlib import Path

import numpy as np

SCHEMAS = {
    kind: Path(__file__).with_name(f"{kind}.schema.json")
    for kind in ("record", "timing", "few_shot")
}


def validate(record):
    """ValueError with the place and the reason where a record is not what the schema says."""
    try:
        import jsonschema
    except ImportError as error:
        raise ImportError("records need jsonschema: pip install 'sagelib[book]'") from error
    kind = record.get("kind") if isinstance(record, dict) else None
    found = _validator(kind if kind in ("timing", "few_shot") else "record").iter_errors(record)
    worst = jsonschema.exceptions.best_match(found)
    if worst is not None:
        raise ValueError(
            f"at {'/'.join(map(str, worst.absolute_path)) or 'the top'}: {worst.message}"
        )
    for place, value in _floats(record):
        if not math.isfinite(value):
            raise ValueError(f"at {place}: {value} is no number that JSON has")
    right = correct_images(record)
    if (
        right is not None
        and abs(100 * int(right.sum()) / len(right) - record["final"]["accuracy"]) > 1e-6
    ):
        raise ValueError(
            f"at final/correct: {right.sum()} of {len(right)} images are right, which is not the "
            f"final accuracy, {record['final']['accuracy']} %"
        )


def as_json(record):
    """The text of a record's file, once it is valid."""
    validate(record)
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


@functools.cache
def _validator(kind):
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(SCHEMAS[kind].read_text()))


def correct_images(record):
    """Which test images the trained network gets right, a bool array (N,) in the test set's order;
    None where the record does not say."""
    packed = record.get("final", {}).get("correct")
    if packed is None:
        return None
    bits = np.frombuffer(base64.b64decode(packed), np.uint8)
    return np.unpackbits(bits, count=record["dataset"]["test"]).astype(bool)


def _floats(value, place=""):
    """Every float in a record with its place, such as ("curve/3/test_loss", 0.5)."""
    if isinstance(value, float):
        yield place, value
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in pairs:
        yield from _floats(inner, f"{place}/{key}".lstrip("/"))
