"""What makes a record valid: its schema, finite numbers, and parts that agree with each other."""
from __future__ import annotations

import base64
import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool

Record = dict[str, Any]  # a record or a part of one, as JSON holds it
Parameters = dict[str, Any]  # of an experiment notebook: name -> value
Row = dict[str, Any]  # of a table: column -> value
SCHEMAS = {kind: Path(__file__).with_name(f"{kind}.schema.json")
           for kind in ("record", "timing", "few_shot")}


def validate(record: Record) -> Record:
    """The record itself; ValueError with place and reason where it is not what the schema says."""
    try:
        import jsonschema
    except ImportError as error:
        raise ImportError("records need jsonschema: pip install 'sagelib[book]'") from error
    worst = jsonschema.exceptions.best_match(_validator(schema_of(record)).iter_errors(record))
    if worst is not None:
        place = "/".join(map(str, worst.absolute_path)) or "the top"
        raise ValueError(f"at {place}: {worst.message}")
    for place, value in _floats(record):
        if not math.isfinite(value):
            raise ValueError(f"at {place}: {value} is no number that JSON has")
    right = correct_images(record)
    if right is not None:
        said = record["final"]["accuracy"]
        if abs(100 * int(right.sum()) / len(right) - said) > 1e-6:
            raise ValueError(f"at final/correct: {right.sum()} of {len(right)} images are right, "
                             f"which is not the final accuracy, {said} %")
    return record


def schema_of(record: Any) -> str:
    """The schema of a record, a key of `SCHEMAS`: that of a training run unless it says another."""
    kind = record.get("kind") if isinstance(record, dict) else None
    return kind if kind in ("timing", "few_shot") else "record"


def as_json(record: Record) -> str:
    """The text of a record's file; ValueError where the record is not valid."""
    return json.dumps(validate(record), indent=1, allow_nan=False) + "\n"


@functools.cache
def _validator(kind):
    import jsonschema
    return jsonschema.Draft202012Validator(json.loads(SCHEMAS[kind].read_text()))


def correct_images(record: Record) -> Bool[np.ndarray, " n"] | None:
    """Which test images the trained network gets right, (N,), in the test set's order.

    None where the record does not say.
    """
    packed = record.get("final", {}).get("correct")
    if packed is None:
        return None
    bits = np.frombuffer(base64.b64decode(packed), np.uint8)
    return np.unpackbits(bits, count=record["dataset"]["test"]).astype(bool)


def _floats(value, place=""):
    """Every float in a record with its place, such as ("curve/3/test_loss", 0.5)."""
    if isinstance(value, float):
        yield place, value
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _floats(inner, f"{place}/{key}".lstrip("/"))
