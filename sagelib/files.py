"""Files that are written completely or not at all, even without hard links or locks."""
from __future__ import annotations

import contextlib
import os
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO


def create(target: str | Path, content: str | Callable[[BinaryIO], object]) -> None:
    """Write a new file as `replace` does; FileExistsError if there is one, which stays.

    BlockingIOError where another process is about to write it, on a file system without hard links.
    """
    with _written(target, content) as part:
        try:
            os.link(part, target)  # unlike a rename, fails if the target is there
        except FileExistsError:
            raise
        except OSError:  # no hard links, as on exFAT, SMB or a mounted Google Drive
            _claimed_rename(part, Path(target))


def replace(target: str | Path, content: str | Callable[[BinaryIO], object]) -> None:
    """Write a file under a temporary name and rename it over the one that is there, if any.

    content: a text, or a function that writes to the open binary file. The folder is made.
    """
    with _written(target, content) as part:
        os.replace(part, target)


def save(target: str | Path, state: object) -> None:
    """What `torch.load` reads, written as `replace` does; OSError where the disk is full."""
    import torch  # not at the top: most of what writes files needs no tensors

    def write(file: BinaryIO) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # PyTorch's own, while it closes a file that it cannot write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    replace(target, write)


@contextlib.contextmanager
def _written(target, content):
    """The content on the disk, in a file beside the target that is gone at the end."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode())
            file.flush()
            os.fsync(file.fileno())
        yield part
    finally:
        part.unlink(missing_ok=True)


def _claimed_rename(part, target):
    """Rename unless the target is there. Only one process can create the claim file meanwhile."""
    claim = target.with_name(f".{target.name}.claim")
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        raise BlockingIOError(f"another process is writing {target}; if none is, one was killed "
                              f"there: remove {claim}, and try again") from None
    try:
        if target.exists():
            raise FileExistsError(f"{target} is there already")
        os.rename(part, target)
    finally:
        claim.unlink()


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """A context for one process at a time, by a lock on the folder.

    A warning where the file system has no locks.
    """
    import fcntl  # Windows has none

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            warnings.warn(f"{folder} is on a file system without locks ({error.strerror}): let one "
                          "process at a time add evaluations to the records there", stacklevel=4)
        yield
    finally:
        os.close(handle)
