"""Make .venv: `python ci/environment.py [--renew]`. Nothing but Python 3.11 with venv is needed.

What the project needs from others, about 7 GB, is installed once for all checkouts of a machine, in
~/.cache/sage-book/KEY (or under XDG_CACHE_HOME). KEY stands for the content of pyproject.toml and
environment.yml and for the Python; a changed dependency makes another folder. A checkout's .venv is
small: it finds those packages through a .pth file, has their commands in its bin/, and this
checkout's sagelib. So a second checkout is ready in seconds. `--renew` installs the newest versions
anew; removing ~/.cache/sage-book frees the space, and the next command makes it again.

Most of the 7 GB comes with PyTorch from PyPI: 3.2 GB of NVIDIA's libraries, 1.1 GB of PyTorch and
0.9 GB of Triton. What the tests alone need (Ray, timm, Lightning, Transformers, OpenCV, playwright,
foolbox) is under 0.8 GB, so that two environments would cost more than one.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
import uuid
import venv
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
EXTRAS = ("book", "test")
SITE = Path("lib") / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
READY = "ready.txt"  # the last file to be written: its folder is complete
SAY_EVERY = 20  # seconds between two lines about an installation that goes on


def main():
    """The command line; returns the exit status."""
    ask = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ask.add_argument("--renew", action="store_true", help="install the newest versions anew")
    asked = ask.parse_args()
    try:
        make(TOP, cache_folder(), install, renew=asked.renew)
    except (OSError, subprocess.CalledProcessError, RuntimeError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the next call starts the installation again", file=sys.stderr)
        return 130
    return 0


def make(top, cache, installer, renew=False):
    """Make TOP/.venv on the packages in CACHE/<key>, which `installer(folder, requirements)` fills
    if they are not there; returns the folder of packages."""
    packages = cache / key(top)
    if renew or not (packages / READY).exists():
        with lock(cache, packages.name):
            if renew or not (packages / READY).exists():  # another maker may have been first
                fill(packages, installer, requirements(top))
    link(top, packages)
    return packages


def cache_folder():
    """Where packages are shared: under XDG_CACHE_HOME or ~/.cache, else in this checkout."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root).absolute() / "sage-book"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    print(f"{folder} cannot be written to; the packages go into this checkout", flush=True)
    return TOP / ".venv-packages"


def key(top):
    """Sixteen hexadecimal digits for the dependencies and the Python."""
    found = hashlib.sha256()
    for name in ("pyproject.toml", "environment.yml"):
        found.update((top / name).read_bytes())
    for part in (sys.version, sys.base_prefix, platform.machine(), platform.system()):
        found.update(part.encode())
    return found.hexdigest()[:16]


def requirements(top):
    """What pip is to install: all that the project, its extras [book] and [test] and its build
    need."""
    found = tomllib.loads((top / "pyproject.toml").read_text())
    extras = found["project"]["optional-dependencies"]
    own = found["project"]["dependencies"]
    return [*found["build-system"]["requires"], *own, *(r for name in EXTRAS for r in extras[name])]


@contextlib.contextmanager
def lock(cache, name):
    """Inside `with`, the only maker of these packages on this machine; a second one waits."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f"{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process is installing the same packages; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks
            print(f"{cache} has no locks ({error}): do not start a second installation now")
        yield


def fill(packages, installer, wanted):
    """Install into a new folder under a temporary name, which is renamed when all is there."""
    for left in packages.parent.glob(f"{packages.name}.*.part"):  # of a maker that was killed
        shutil.rmtree(left, ignore_errors=True)
    part = packages.with_name(f"{packages.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        installer(part, wanted)
        (part / READY).write_text("\n".join(wanted) + "\n")
        old = part.with_name(f"{packages.name}.{uuid.uuid4().hex[:8]}.part")
        if packages.exists():
            packages.rename(old)
        part.rename(packages)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def install(folder, wanted):
    """A new environment in `folder` with the requirements; says what is happening."""
    free = shutil.disk_usage(folder.parent).free / 1e9
    if free < 12:  # 7 GB of packages and, while they are unpacked, 3.5 GB of downloads
        older = [path for path in folder.parent.glob("*") if (path / READY).exists()]
        remedy = f"; remove what no checkout uses: {', '.join(map(str, older))}" if older else ""
        raise RuntimeError(f"{free:.0f} GB are free in {folder.parent}; the installation needs 12"
                           f"{remedy}")
    venv.create(folder, with_pip=True, symlinks=True)
    print(
        "installing what the project needs, once for all checkouts: about 7 GB, 3 GB of "
        "downloads;\n2 minutes on a fast machine, a quarter of an hour on a slow one",
        flush=True,
    )
    log, start = folder / "pip.log", time.monotonic()
    command = [
        folder / "bin/python", "-m", "pip", "install", "--no-compile", "--progress-bar", "off"
    ]
    command += ["--disable-pip-version-check", *wanted]  # modules are compiled when they are used
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(SAY_EVERY)
                    break
                print(f"  {time.monotonic() - start:4.0f} s  {doing(log)}", flush=True)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-15:])
        raise RuntimeError(f"pip could not install the packages:\n{last}")
    print(f"installed in {time.monotonic() - start:.0f} s", flush=True)


def doing(log):
    """What pip is doing, from its log and from what is there of the packages."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["starting"]
    unpacking = [line.count(",") + 1 for line in lines if line.startswith("Installing collected")]
    if not unpacking:
        return " ".join(lines[-1].split()[:2])
    there = len(list((log.parent / SITE).glob("*.dist-info")))
    return f"unpacking: {there} of {unpacking[-1]} packages are there (PyTorch's are the largest)"


def link(top, packages):
    """Make TOP/.venv, unless it is there and of these packages."""
    target = top / ".venv"
    built = target / READY
    mark = f"{packages}\n{(packages / READY).stat().st_mtime_ns}\n"
    if built.exists() and built.read_text() == mark and (target / "bin/python").exists():
        return
    shutil.rmtree(target, ignore_errors=True)
    venv.create(target, with_pip=False, symlinks=True)
    site = target / SITE
    path = str(packages / SITE)
    (site / "sage_book_packages.pth").write_text(f"import site; site.addsitedir({path!r})\n")
    for name in ("share", "etc"):
        if (packages / name).exists():
            (target / name).symlink_to(packages / name)
    for script in sorted((packages / "bin").iterdir()):
        command(script, target / "bin" / script.name, target / "bin/python")
    pip = [target / "bin/python", "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    pip += ["--disable-pip-version-check", "-e", top]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip could not install this checkout:\n{done.stdout}{done.stderr}")
    built.write_text(mark)


def command(script, target, python):
    """Put a command of the packages into .venv/bin: a Python script with this .venv's Python, else
    a link."""
    if target.exists() or script.name.startswith(("python", "activate", "Activate")):
        return
    text = script.read_bytes()
    first, _, rest = text.partition(b"\n")
    if not first.startswith(b"#!"):
        target.symlink_to(script)
        return
    if first == b"#!/bin/sh" and rest.startswith(b"'''exec'"):  # pip's form for long paths
        rest = rest.split(b"\n", 2)[2]
    elif b"python" not in first:
        target.symlink_to(script)
        return
    start = f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"  # any path, with spaces too
    target.write_bytes(start.encode() + rest)
    target.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
