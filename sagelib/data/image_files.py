"""Which files of a folder are images, without hidden ones and what systems leave behind."""
from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING

from .images import image_endings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

LEFTOVERS = {  # of macOS, Windows and network drives, in lower case
    "__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin",
    "system volume information", "@eadir", "#recycle", "lost+found",
}


def visible(folder: Path) -> list[Path]:
    """The files and folders in a folder, as sorted paths, without hidden ones and leftovers."""
    return sorted(path for path in folder.iterdir() if is_visible(path.name))


def is_visible(name: str) -> bool:
    """False for the name of a hidden file or folder, and for what systems leave behind."""
    return not name.startswith(".") and name.lower() not in LEFTOVERS


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images in a folder and its subfolders, and its other files: two sorted lists of paths.

    A file is an image if Pillow reads its ending, in upper or lower case. Links are followed.
    """
    endings, images, others = image_endings(), [], []
    for path in _walk(folder):
        kind = images if is_image(path, endings) else others
        kind.append(path)
    return sorted(images), sorted(others)


def is_image(path: Path, endings: Collection[str] | None = None) -> bool:
    """True for a file, or a link to nowhere, whose ending Pillow reads; a pipe is no image."""
    regular = path.is_file() or not path.exists()
    return regular and path.suffix.lower() in (endings or image_endings())


def warn_left_out(folder: Path, images: Sequence[Path], others: Sequence[Path]) -> None:
    """One warning that counts and names the files which are not read, and says what is read."""
    if others:
        warnings.warn(
            f"{folder}: {len(others)} of {len(images) + len(others)} files are left out, since "
            f"Pillow does not read their endings as images: {count_endings(others)}, for example "
            f"{others[0].relative_to(folder)}; read: {count_endings(images)}", stacklevel=3)


def count_endings(files: Iterable[Path]) -> str:
    """How many files have each ending, the most frequent first: ".png (12), .jpg (3)"."""
    counts = Counter(file.suffix.lower() or "no ending" for file in files)
    return ", ".join(f"{ending} ({n})" for ending, n in counts.most_common())


def _walk(folder, above=()):
    here = folder.resolve()
    if here in above:
        raise ValueError(f"{folder} is a link to a folder that it is in itself; remove the link")
    for path in visible(folder):
        if path.is_dir():
            yield from _walk(path, (*above, here))
        else:
            yield path
