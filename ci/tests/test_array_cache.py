"""CIFAR's images in one file beside their folders: the same bytes, and never those of before."""
import os
import shutil
import warnings

import pytest
import torch
from PIL import Image

from sagelib import datasets, files
from sagelib.catalog import load
from sagelib.data import array_cache, cifar
from sagelib.data.image_folder import read
from sagelib.datasets import cifar_fs

CLASSES = [f"class{k}" for k in range(10)]
FILE = "cifar10/.sagelib-cifar10.pt"


@pytest.fixture
def root(cifar_tree):
    found = cifar_tree("cifar10", CLASSES)
    for file in found.rglob("*.png"):
        os.utime(file, (0, 0))
    paint(found, 0, 0)
    return found


def paint(root, green, seconds):
    """Another training image of class 3, in a file of the same size, changed at this time."""
    file = root / "cifar10/train/class3/0000.png"
    Image.new("RGB", (32, 32), (3, green, 0)).save(file)
    with file.open("ab") as opened:
        opened.truncate(1000)  # zeros after the image
    os.utime(file, (seconds, seconds))


@pytest.fixture
def decoded(monkeypatch):
    """The folders that were decoded, in order."""
    found = []

    def counted(folder, *args):
        found.append(folder.name)
        return read(folder, *args)
    monkeypatch.setattr(cifar, "read", counted)
    return found


def green(root):
    """The green of the training images, one a class."""
    return load(datasets, "cifar10", root=root)[0].images[:, 1, 0, 0].tolist()


def same(one, two):
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
               and a.classes == b.classes and a.mean == b.mean
               for a, b in zip(one, two, strict=True))


def test_the_second_time_decodes_nothing_and_is_the_same(root, decoded):
    first = load(datasets, "cifar10", root=root)
    assert decoded == ["train", "test"] and (root / FILE).is_file()
    second = load(datasets, "cifar10", root=root)
    assert decoded == ["train", "test"] and same(first, second)
    for part, folder in zip(second, ("train", "test"), strict=True):
        images, labels = read(root / "cifar10" / folder, CLASSES, (32, 32))
        assert torch.equal(part.images, images) and part.images.dtype == torch.uint8
        assert torch.equal(part.labels, labels) and part.classes == tuple(CLASSES)
    assert sorted(p.name for p in (root / "cifar10").iterdir()) == [
        ".sagelib-cifar10.pt", "test", "train"]


def test_cifar_fs_decodes_once_too(cifar_tree, decoded):
    names = sorted([*cifar_fs.VAL, *cifar_fs.TEST, *(f"other{k:02d}" for k in range(64))])
    root = cifar_tree("cifar100", names)
    assert same(load(datasets, "cifar_fs", root=root), load(datasets, "cifar_fs", root=root))
    assert decoded == ["train", "test"]


def test_another_image_of_the_same_name_and_size_is_seen(root):
    file = root / "cifar10/train/class3/0000.png"
    assert green(root) == [0] * 10
    paint(root, 9, 1)
    assert green(root)[3] == 9
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # with the time of before, as a copy
        paint(root, 8, 1)
    assert file.stat().st_mtime_ns == before.st_mtime_ns and file.stat().st_size == before.st_size
    assert green(root)[3] == 8


def test_an_image_under_another_name_is_seen(root, decoded):
    green(root)
    (root / "cifar10/train/class3/0000.png").rename(root / "cifar10/train/class3/0001.png")
    green(root)
    assert decoded == ["train", "test"] * 2


def test_a_file_more_or_less_is_the_same_error_as_without(root):
    load(datasets, "cifar10", root=root)
    more = root / "cifar10/test/class3/0001.png"
    Image.new("RGB", (32, 32)).save(more)
    for _ in range(2):
        with pytest.raises(ValueError, match="has 10 test images, here are 11; unpack it again"):
            load(datasets, "cifar10", root=root)
    more.unlink()
    assert green(root) == [0] * 10
    (root / "cifar10/train/class3/0000.png").unlink()
    with pytest.raises(ValueError, match=r"the class folder .*class3 has no image"):
        load(datasets, "cifar10", root=root)
    (root / "cifar10/train/class3").rmdir()
    with pytest.raises(ValueError, match="has 9 classes, cifar10 has 10; is it another data set"):
        load(datasets, "cifar10", root=root)


def test_a_class_more_in_the_test_set_is_the_same_error_as_without(root):
    load(datasets, "cifar10", root=root)
    (root / "cifar10/test/other").mkdir()
    with pytest.raises(ValueError, match="has the class 'other' that the training set does not"):
        load(datasets, "cifar10", root=root)


def test_files_that_are_left_out_are_named_each_time(root):
    (root / "cifar10/train/class3/list.txt").write_text("")
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 11 files are left out"):
            load(datasets, "cifar10", root=root)
    assert not (root / FILE).exists()


def test_hidden_files_and_leftovers_change_nothing(root, decoded):
    green(root)
    for name in (".DS_Store", "train/class3/._0000.png", "test/Thumbs.db"):
        (root / "cifar10" / name).write_bytes(b"left behind")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert green(root) == [0] * 10
    assert decoded == ["train", "test"]


def spoilt_checksum(file):
    """One bit of one image is another, in a file that is whole as far as its format knows."""
    state = torch.load(file, weights_only=True)
    state["parts"][0][0][4, 1, 5, 6] ^= 1
    torch.save(state, file)


def other_version(file):
    torch.save(torch.load(file, weights_only=True) | {"version": 0}, file)


@pytest.mark.parametrize("spoil", [
    *(lambda file, share=share: os.truncate(file, int(share * file.stat().st_size))
      for share in (0.0, 0.5, 0.99)),
    spoilt_checksum, other_version, lambda file: torch.save({"net": {}}, file),
    lambda file: torch.save([1, 2], file), lambda file: file.write_text("by another program"),
], ids=["empty", "half", "cut off", "a bit", "version", "other keys", "a list", "text"])
def test_a_damaged_or_foreign_file_is_passed_over_and_written_again(spoil, root, decoded):
    first = load(datasets, "cifar10", root=root)
    spoil(root / FILE)
    assert same(load(datasets, "cifar10", root=root), first)
    assert same(load(datasets, "cifar10", root=root), first)
    assert decoded == ["train", "test"] * 2


def test_a_bit_of_the_bytes_on_the_disk_is_noticed(root, decoded):
    first = load(datasets, "cifar10", root=root)
    content = bytearray((root / FILE).read_bytes())
    pixels = first[0].images.numpy().tobytes()
    content[content.index(pixels) + 20_000] ^= 64
    (root / FILE).write_bytes(content)
    assert same(load(datasets, "cifar10", root=root), first) and len(decoded) == 4


def test_the_file_of_another_tree_is_passed_over(root, tmp_path):
    load(datasets, "cifar10", root=root)
    shutil.copytree(root / "cifar10", tmp_path / "other/cifar10")
    paint(tmp_path / "other", 7, 1)
    assert green(tmp_path / "other")[3] == 7


def test_without_the_right_to_write_it_is_read_each_time(root, decoded, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with monkeypatch.context() as patch:
            patch.setattr(files, "replace", refuse)
            first = load(datasets, "cifar10", root=root)
        assert not (root / FILE).exists()
        (root / FILE).mkdir()  # no file can be written there, not even by an administrator
        assert same(load(datasets, "cifar10", root=root), first)
    assert len(decoded) == 4 and not list((root / "cifar10").glob(".*.part"))


def test_two_processes_at_once_write_one_whole_file(root, decoded, monkeypatch):
    """The second reads and writes all of it between the first's reading and writing."""
    own, first = array_cache._save, []

    def after_another(*args):
        monkeypatch.setattr(array_cache, "_save", own)
        first.append(load(datasets, "cifar10", root=root))
        own(*args)
    monkeypatch.setattr(array_cache, "_save", after_another)
    second = load(datasets, "cifar10", root=root)
    assert len(decoded) == 4
    assert same(first[0], second) and same(load(datasets, "cifar10", root=root), second)
    assert len(decoded) == 4


def test_images_that_change_while_they_are_read_are_not_kept(root, monkeypatch):
    def changed(folder, *args):
        found = read(folder, *args)
        paint(root, 6, 1)
        return found
    with monkeypatch.context() as patch:
        patch.setattr(cifar, "read", changed)
        assert green(root) == [0] * 10
    assert green(root)[3] == 6


def test_a_folder_in_itself_is_the_same_error_as_without(root):
    load(datasets, "cifar10", root=root)
    (root / "cifar10/train/class3/loop").symlink_to("..", target_is_directory=True)
    with pytest.raises(ValueError, match="is a link to a folder that it is in itself"):
        load(datasets, "cifar10", root=root)


def test_linked_folders_are_followed(root, tmp_path, decoded):
    (tmp_path / "linked/cifar10").mkdir(parents=True)
    for split in ("train", "test"):
        (tmp_path / "linked/cifar10" / split).symlink_to(root / "cifar10" / split)
    assert green(tmp_path / "linked") == green(tmp_path / "linked") == [0] * 10
    assert len(decoded) == 2 and (tmp_path / "linked" / FILE).is_file()
    paint(root, 5, 1)
    assert green(tmp_path / "linked")[3] == 5
