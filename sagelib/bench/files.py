"""Files that are written whole or not at all, also where a file system has no hard links or no
locks."""

import contextlib
import fcntl
import os
import uuid
import warnings
from pathlib import Path


def create(target, text):
    """Write a new file under a temporary name and put it in its place. FileExistsError if there is
    one, which stays.

    BlockingIOError where another process is about to write it, on a file system without hard links.
    """
    part = _written(target, text)
    try:
        try:
            os.link(part, target)  # unlike a rename, fails if the target is there
        except FileExistsError:
            raise
        except OSError:  # no hard links, as on exFAT, SMB or a mounted Google Drive
            _claimed_rename(part, target)
    finally:
        part.unlink(missing_ok=True)


def replace(target, text):
    """Write a file under a temporary name and rename it over the one that is there."""
    os.replace(_written(target, text), target)


def _written(target, text):
    part = Path(target).with_name(f".{Path(target).name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    part.write_text(text)
    return part


def _claimed_rename(part, target):
    """Rename unless the target is there. A file that one process alone can create keeps others out
    meanwhile."""
    claim = Path(target).with_name(f".{Path(target).name}.claim")
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        raise BlockingIOError(
            f"another process is writing {target}; if none is, one was killed there: "
            f"remove {claim}, and try again"
        ) from None
    try:
        if Path(target).exists():
            raise FileExistsError(f"{target} is there already")
        os.rename(part, target)
    finally:
        claim.unlink()


@contextlib.contextmanager
def locked(folder):
    """A context for one process at a time, by a lock on the folder; a warning where the file system
    has no locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            warnings.warn(
                f"{folder} is on a file system without locks ({error.strerror}): let "
                "one process at a time add evaluations to the records there",
                stacklevel=4,
            )
        yield
    finally:
        os.close(handle)
