"""The images of class folders in one file beside them: 60,000 PNGs are decoded only once.

The file names the state of the folders that it was made from: every path, size and time of change.
It is used only while they are in that state and its own checksum is right. Where it cannot be
written, the images are decoded each time.
"""
from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import files
from .image_files import is_visible

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8

    # images and class indices of one folder
    Part = tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"]]

VERSION = 1  # to be raised when the file or the reader of images changes


def cached(file: Path, folders: Sequence[Path], read: Callable[[], list[Part]]) -> list[Part]:
    """What `read()` gives for the folders, one part for each; from `file` if it was kept there.

    A folder with files that are no images is not kept, so that `read` warns of them each time. The
    state of the folders is noted before they are read: what changes meanwhile is seen next time.
    """
    listing = _listing(folders)
    kept = _load(file, listing)
    if kept is not None:
        return kept
    parts = read()
    if listing is not None and listing[1] == sum(len(labels) for _, labels in parts):
        with contextlib.suppress(OSError):  # a read-only folder, a full disk
            _save(file, listing, parts)
    return parts


def _save(file, listing, parts):
    state = {"version": VERSION, "listing": listing[0], "crc32": _checksum(parts), "parts": parts}
    files.save(file, state)


def _load(file, listing):
    """The parts in the file, or None if it is not there, damaged, or of other folders."""
    if listing is None or not file.is_file():
        return None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        parts = state["parts"]
        right = (VERSION, listing[0], _checksum(parts))
        return parts if right == (state["version"], state["listing"], state["crc32"]) else None
    except Exception:  # a damaged or foreign file fails in many ways
        return None


def _checksum(parts):
    found = 0
    for part in parts:
        for z in part:
            found = zlib.crc32(z.numpy(), found)
    return found


def _listing(folders: Sequence[Path]) -> tuple[str, int] | None:
    """A digest of the visible files under the folders, and their number; None if one is unreadable.

    Of each file it covers the path, the size, and the times at which its content and its entry in
    the file system were changed: a copy that keeps the first time does not keep the second.
    """
    digest, count = hashlib.blake2b(), 0
    try:
        for k, folder in enumerate(folders):
            lines = sorted(_lines(folder, f"{k}"))
            count += sum(is_file for *_, is_file in lines)
            digest.update(repr(lines).encode())
    except OSError:
        return None
    return digest.hexdigest(), count


def _lines(folder: str | Path, name: str,
           above: tuple[tuple[int, int], ...] = ()) -> Iterator[tuple[str, int, int, int, bool]]:
    """(path, size, two times, whether it is a file) of the visible files and folders in a folder.

    OSError for a folder that is in itself.
    """
    found = os.stat(folder)
    here = found.st_dev, found.st_ino
    if here in above:
        raise OSError(f"{folder} is in itself")
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_visible(entry.name):
                continue
            path = f"{name}/{entry.name}"
            if entry.is_dir():
                yield path, 0, 0, 0, False
                yield from _lines(entry.path, path, (*above, here))
            else:
                found = entry.stat()
                yield path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, True
