"""The environment: one set of packages for all checkouts, whole or not at all."""
import importlib.metadata
import os
import subprocess
import sys
import threading
import types
import venv
from pathlib import Path

import environment
import pytest

from sagelib.bench.paths import TOP


def checkout(folder, depends="numpy"):
    """A small project: a package with the checkout's own text, and what it depends on."""
    (folder / "own").mkdir(parents=True)
    (folder / "own/__init__.py").write_text(f"where = {folder.name!r}\n")
    (folder / "environment.yml").write_text("name: x\n")
    (folder / "pyproject.toml").write_text(f"""
[build-system]
requires = ["setuptools>=60"]
build-backend = "setuptools.build_meta"
[project]
name = "own"
version = "1"
dependencies = ["{depends}"]
[project.optional-dependencies]
book = ["b"]
test = ["t"]
[tool.setuptools]
packages = ["own"]
""")
    return folder


class Installer:
    """Puts one package and one command into an environment; counts how often."""

    def __init__(self, fails=False):
        self.calls, self.fails = [], fails

    def __call__(self, folder, wanted):
        self.calls.append(wanted)
        venv.create(folder, symlinks=True)
        site = folder / environment.SITE
        (site / "shared.py").write_text("value = 42\n")
        # pip, and what builds a checkout; find_spec("pip") would switch setuptools' distutils off
        # in this process
        here = Path(importlib.metadata.distribution("pip").locate_file(""))
        (site / "builders.pth").write_text(f"import site; site.addsitedir({str(here)!r})\n")
        (folder / "bin/tell").write_text(
            f"#!{folder}/bin/python\nimport own, shared, sys\nprint(own.where, shared.value, "
            "sys.prefix)\n")
        (folder / "share").mkdir()
        if self.fails:
            raise RuntimeError("no space left")


def test_a_second_checkout_shares_the_packages_and_keeps_its_own_code(tmp_path):
    installer = Installer()
    places = [checkout(tmp_path / name) for name in ("one", "the second")]  # a space in the path
    found = [environment.make(place, tmp_path / "cache", installer) for place in places]
    assert found[0] == found[1] and installer.calls == [["setuptools>=60", "numpy", "b", "t"]]
    for place in places:
        said = subprocess.run([place / ".venv/bin/tell"], capture_output=True, text=True,
                              check=True).stdout
        assert said == f"{place.name} 42 {place / '.venv'}\n"
        assert (place / ".venv/share").resolve() == found[0] / "share"
    before = (places[0] / ".venv/pyvenv.cfg").stat().st_mtime_ns
    environment.make(places[0], tmp_path / "cache", installer)  # nothing is left to do
    assert (places[0] / ".venv/pyvenv.cfg").stat().st_mtime_ns == before
    assert len(installer.calls) == 1


@pytest.fixture
def packages_alone(monkeypatch):
    """Without the checkout's own .venv, which takes pip some seconds."""
    monkeypatch.setattr(environment, "link", lambda top, packages: None)


def test_another_dependency_is_another_key_and_renew_installs_again(tmp_path, packages_alone):
    installer, cache = Installer(), tmp_path / "cache"
    first = environment.make(checkout(tmp_path / "one"), cache, installer)
    other = environment.make(checkout(tmp_path / "two", "scipy"), cache, installer)
    assert first != other and len(installer.calls) == 2
    (first / "old").write_text("")
    assert environment.make(tmp_path / "one", cache, installer, renew=True) == first
    assert len(installer.calls) == 3
    assert not (first / "old").exists() and not list(cache.glob("*.part"))


def test_two_makers_install_once(tmp_path, packages_alone):
    installer, cache = Installer(), tmp_path / "cache"
    places = [checkout(tmp_path / f"{k}") for k in range(3)]
    makers = [threading.Thread(target=environment.make, args=(place, cache, installer))
              for place in places]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(installer.calls) == 1


def test_an_installation_that_fails_or_is_killed_leaves_nothing_that_looks_complete(
        tmp_path, packages_alone):
    cache, place = tmp_path / "cache", checkout(tmp_path / "one")
    with pytest.raises(RuntimeError, match="no space left"):
        environment.make(place, cache, Installer(fails=True))
    key = environment.key(place)
    assert [p.name for p in cache.iterdir()] == [f"{key}.lock"]
    (cache / f"{key}.0123abcd.part").mkdir()  # of a maker that was killed
    environment.make(place, cache, Installer())
    assert sorted(p.name for p in cache.iterdir()) == [key, f"{key}.lock"]


def test_the_key_is_of_the_dependencies_and_the_python(tmp_path, monkeypatch):
    place = checkout(tmp_path / "one")
    keys = [environment.key(place)]
    (place / "own/__init__.py").write_text("changed = True\n")
    assert environment.key(place) == keys[0]
    (place / "environment.yml").write_text("name: y\n")
    keys.append(environment.key(place))
    monkeypatch.setattr(sys, "version", "3.99")
    keys.append(environment.key(place))
    assert len(set(keys)) == 3


def test_the_cache_is_where_the_system_keeps_them_or_else_in_the_checkout(
        tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment.cache_folder() == tmp_path / "sage-book"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert environment.cache_folder() == TOP / ".venv-packages"
    assert "cannot be written to" in capsys.readouterr().out


def test_too_little_space_says_what_can_be_removed(tmp_path, monkeypatch):
    old = tmp_path / "0123456789abcdef"
    old.mkdir()
    (old / environment.READY).touch()
    (tmp_path / "made.by.a.killed.one.part").mkdir()
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda folder: types.SimpleNamespace(
        free=11e9))
    with pytest.raises(RuntimeError, match="11 GB are free in .*needs 12; remove what no checkout "
                                           rf"uses: {old}$"):
        environment.install(tmp_path / "new", ["numpy"])
    assert not (tmp_path / "new").exists()


def test_an_installation_says_what_it_is_doing(tmp_path):
    log = tmp_path / "pip.log"
    log.write_text("Collecting x\nDownloading torch-2.14.1-cp311.whl (554.6 MB)\n")
    assert environment.doing(log) == "Downloading torch-2.14.1-cp311.whl"
    log.write_text("Installing collected packages: a, b, c\n  Attempting uninstall: a\n")
    (tmp_path / environment.SITE / "a-1.dist-info").mkdir(parents=True)
    assert environment.doing(log).startswith("unpacking: 1 of 3 packages")


def test_the_scripts_of_the_environment_are_executable():
    for name in ("ci/book", "ci/test", "ci/gpu", ".ci/run"):
        assert os.access(TOP / name, os.X_OK)
