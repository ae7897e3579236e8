"""Data sets and batches: exact masks, balanced subsets, crops and flips against loops, errors that
name the file."""
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from sagelib import catalog, datasets, teaching
from sagelib.catalog import load
from sagelib.data.batches import Batches
from sagelib.data.dataset import Dataset
from sagelib.datasets import photographs
from sagelib.datasets import shapes as shapes_module


def test_shapes_are_the_same_for_the_same_seed_and_balanced(shapes):
    train, test = shapes
    again, _ = load(datasets, "shapes", train=40, test=30)
    other, _ = load(datasets, "shapes", train=40, test=30, seed=1)
    assert torch.equal(train.images, again.images) and not torch.equal(train.images, other.images)
    assert train.images.shape == (40, 3, 32, 32) and train.images.dtype == torch.uint8
    assert train.labels.bincount().tolist() == [4] * 10
    assert test.labels.bincount().tolist() == [3] * 10
    assert not torch.equal(train.images[:30], test.images)


@pytest.mark.parametrize("height, width", [(32, 32), (20, 36)])
def test_shapes_masks_are_exact(height, width):
    """Drawn once with and once without noise and contrast, the image outside the object is the same
    background."""
    images, _, masks = shapes_module.make(30, 0.0, height, width, seed=4)
    assert masks.shape == (30, 1, height, width) and masks.dtype == torch.bool
    area = masks.float().mean((1, 2, 3))
    assert area.min() > 0.02 and area.max() < 0.5
    x = images.float() / 255
    inside = torch.where(masks.expand_as(x), x, torch.nan)
    # at difficulty 0 an object has exactly two colours, its surroundings hundreds
    for k in range(30):
        colours = inside[k][:, masks[k, 0]].T.unique(dim=0)
        around = x[k][:, ~masks[k, 0]].T.unique(dim=0)
        assert len(colours) <= 3 and len(around) > 50


@pytest.fixture(scope="module")
def photos():
    return load(datasets, "photographs", train=28, test=21, size=24, seed=3)


def test_photographs_are_the_same_for_the_same_seed_and_balanced(photos):
    train, test = photos
    again, _ = load(datasets, "photographs", train=28, test=21, size=24, seed=3)
    other, _ = load(datasets, "photographs", train=28, test=21, size=24, seed=4)
    assert "photographs" in catalog.names(datasets)
    assert torch.equal(train.images, again.images) and not torch.equal(train.images, other.images)
    assert train.images.shape == (28, 3, 24, 24) and train.images.dtype == torch.uint8
    assert train.masks.shape == (28, 1, 24, 24) and train.masks.dtype == torch.bool
    assert train.classes == ("astronaut", "cat", "coffee", "flower", "pagoda", "rocket",
                             "surroundings") == test.classes
    assert train.labels.bincount().tolist() == [4] * 7
    assert test.labels.bincount().tolist() == [3] * 7
    assert train.images.min() < 20 and train.images.max() > 235
    assert train.mean == test.mean and train.std == test.std
    gaps = (train.images[:, None].int() - test.images[None].int()).abs().amax((2, 3, 4))
    assert gaps.min() > 10  # no crop is in both sets


@pytest.mark.parametrize("name", photographs.PHOTOGRAPHS)
def test_a_crop_shows_its_object_and_lies_in_its_photograph(name):
    """A photograph whose pixels say where they are, and whose mask is the core of its object."""
    photograph = photographs.PHOTOGRAPHS[name]
    height, width = photographs._read(photograph).shape[1:]
    left, top, right, bottom = photograph.core
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    core = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    source = torch.stack([rows, columns, rows, core])
    g, corners = torch.Generator().manual_seed(0), set()
    for _ in range(50):
        square = photographs._with_object({name: source}, name, g)
        side = square.shape[1]
        assert square.shape == (4, side, side)
        assert photograph.sides[0] <= side <= photograph.sides[1] <= min(height, width)
        assert square[3].sum() == core.sum() > 0
        corners.add((square[0, 0, 0].item(), square[1, 0, 0].item()))
    assert len(corners) > 10


def test_masks_of_photographs_are_outlines_of_what_stands_out(photos):
    """The flower is orange on dark green, and its mask knows; surroundings have no object."""
    train, _ = photos
    flower = train[train.labels == train.classes.index("flower")]
    red, green = (flower.images[:, k:k + 1].float() for k in (0, 1))
    inside = (red > green + 20) == flower.masks
    assert inside.float().mean() > 0.85
    share = train.masks.float().mean((1, 2, 3))
    empty = train.labels == train.classes.index("surroundings")
    assert share[empty].max() < 0.05 < share[~empty].min()


def test_photographs_without_their_package_or_with_impossible_sizes_are_one_clear_error(
        monkeypatch):
    for wrong in (dict(train=6), dict(test=0), dict(size=7)):
        with pytest.raises(ValueError, match="at least 7 images in each set, of at least 8 x 8"):
            load(datasets, "photographs", **wrong)
    for package in ("skimage", "sklearn"):
        with monkeypatch.context() as gone:
            for name in [n for n in sys.modules if n.split(".")[0] == package]:
                gone.delitem(sys.modules, name)
            gone.setitem(sys.modules, package, None)
            with pytest.raises(ImportError, match=r"pip install 'sagelib\[book\]'"):
                load(datasets, "photographs", train=7, test=7)


def test_the_chapters_take_any_data_set_of_the_catalogue(image_folder):
    """So many training images, the test images in random order; masks, or whole images."""
    train, test = teaching.small_sets("shapes", None, 40)
    assert len(train) == 40 and torch.equal(teaching.object_masks(train), train.masks.float())
    train, test = teaching.small_sets("folder", image_folder, 4)
    assert train.labels.tolist() == [0, 0, 1, 1] and len(test) == 4
    other = teaching.small_sets("folder", image_folder, 99, seed=1)
    assert len(other[0]) == 6 and not torch.equal(test.images, other[1].images)
    assert sorted(test.labels.tolist()) == [0, 0, 1, 1]
    assert torch.equal(teaching.object_masks(test), torch.ones(4, 1, *test.images.shape[2:]))
    with pytest.raises(ValueError, match="shapes_fs is for few-shot learning"):
        teaching.small_sets("shapes_fs", None, 40)


def test_an_image_without_an_object_counts_as_a_whole(photos):
    masks = teaching.object_masks(photos[0])
    empty = ~photos[0].masks.flatten(1).any(1)
    assert empty.any() and masks[empty].min() == 1
    assert torch.equal(masks[~empty], photos[0].masks[~empty].float())


def test_a_network_that_shrinks_images_is_one_of_the_means_of_squares(photos):
    train = photos[0]
    net = teaching.short_training(train, 1, shrink=3).eval()
    x = train.normalised()[:4]
    small = torch.stack([x[..., r::3, c::3] for r in range(3) for c in range(3)]).mean(0)
    assert_close(net(x), net[1](small), rtol=1e-4, atol=1e-5)


def test_normalised_and_pixels_are_inverse(shapes):
    train, _ = shapes
    x = train.normalised()
    assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(x.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    assert_close(train.pixels(x), train.images / 255, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [10, 23, 40])
def test_subset_has_as_many_of_each_class_to_within_one(n, shapes):
    part = shapes[0].subset(n, seed=3)
    counts = part.labels.bincount(minlength=10)
    assert len(part) == n and counts.max() - counts.min() <= 1
    assert torch.equal(part.images, shapes[0].subset(n, seed=3).images)
    assert n == 40 or not torch.equal(part.images, shapes[0].subset(n, seed=4).images)


def test_batches_crop_and_flip_like_the_loop(shapes):
    train = load(datasets, "shapes", train=40, test=30, height=20, width=28)[0]
    seen = list(Batches(train, 16, padding=2, generator=torch.Generator().manual_seed(6)))
    g = torch.Generator().manual_seed(6)
    order, k = torch.randperm(40, generator=g), 0
    for x, y in seen:
        n = len(x)
        top, left = torch.randint(5, (n, 1), generator=g), torch.randint(5, (n, 1), generator=g)
        turned = torch.rand((n, 1), generator=g) < 0.5
        for b in range(n):
            wide = np.pad(train.images[order[k]].numpy(), ((0, 0), (2, 2), (2, 2)))
            cut = wide[:, top[b]:top[b] + 20, left[b]:left[b] + 28]
            cut = cut[:, :, ::-1].copy() if turned[b] else cut
            assert_close(x[b], train.normalised(torch.from_numpy(cut)[None])[0])
            assert y[b].argmax() == train.labels[order[k]] and y[b].sum() == 1
            k += 1
    assert k == 40 and [len(x) for x, _ in seen] == [16, 16, 8] and len(Batches(train, 16)) == 3


def test_batches_without_a_generator_are_the_plain_images(shapes):
    x = torch.cat([x for x, _ in Batches(shapes[1], 7)])
    assert torch.equal(x, shapes[1].normalised())


def test_folder_reads_images_as_they_are(image_folder):
    from PIL import Image
    train, test = load(datasets, "folder", root=image_folder)
    assert train.classes == ("cat", "dog") and train.images.shape == (6, 3, 12, 16)
    assert len(test) == 4
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    with Image.open(image_folder / "train/dog/1.png") as opened:
        assert np.array_equal(train.images[4].permute(1, 2, 0).numpy(), np.asarray(opened))
    assert_close(train.normalised().mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert test.mean == train.mean


def test_folder_takes_grey_and_opaque_images(image_folder):
    from PIL import Image
    Image.new("L", (16, 12), 77).save(image_folder / "train/cat/grey.png")
    Image.new("RGBA", (16, 12), (1, 2, 3, 255)).save(image_folder / "train/cat/rgba.png")
    train, _ = load(datasets, "folder", root=image_folder)
    assert train.images[3].unique().tolist() == [77]
    assert train.images[4][:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name, mean", [("cifar10", 125.3 / 255), ("cifar100", 129.3 / 255)])
def test_cifar_reads_an_unpacked_folder(name, mean, cifar_tree, monkeypatch):
    """A whole tree of 60,000 tiny files is not made here: the count is the one thing the test
    changes."""
    classes = int(name[5:])
    root = cifar_tree(name, [f"class{k:03d}" for k in range(classes)])
    train, test = load(datasets, name, root=root)
    assert len(train.classes) == classes
    assert train.images[:, 0, 0, 0].tolist() == list(range(classes))
    assert train.mean[0] == pytest.approx(mean) and test.std == train.std
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has 50000 train images, here are"):
        load(datasets, name, root=root)


def test_images_are_resized_as_pillow_does_it(shapes):
    """Up, as from 84 to 96, and down; bytes may differ by one, by the rounding."""
    few = shapes[0][torch.arange(6)]
    for size in ((37, 41), (20, 13)):
        found = few.resized(*size)
        assert found.images.dtype == torch.uint8 and found.images.shape == (6, 3, *size)
        assert found.masks is None or found.masks.shape == (6, 1, *size)
        for ours, image in zip(found.images, few.images, strict=True):
            theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
                size[::-1], Image.Resampling.BILINEAR)
            gap = ours.permute(1, 2, 0).int() - torch.from_numpy(np.array(theirs)).int()
            assert gap.abs().max() <= 1
    with pytest.raises(ValueError, match="both must be at least 1"):
        few.resized(0, 3)


def test_a_crop_is_a_random_window_in_training_and_the_centre_otherwise():
    """Each pixel says where it is: its row in red, its column in green."""
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(15), indexing="ij")
    image = torch.stack([rows, columns, rows]).byte()
    data = Dataset(image.repeat(400, 1, 1, 1), torch.zeros(400, dtype=torch.long), ("a",),
                   (0.0,) * 3, (1 / 255,) * 3)
    batches = Batches(data, 400, 0, False, torch.Generator().manual_seed(0), (8, 10))
    x, _ = next(iter(batches))
    assert x.shape == (400, 3, 8, 10)
    corners = x[:, :2, 0, 0].round().long()
    assert corners.amin(0).tolist() == [0, 0] and corners.amax(0).tolist() == [4, 5]
    assert len(corners.unique(dim=0)) == 5 * 6
    window = image[:2].float()
    for picture, (top, left) in zip(x[:40], corners[:40].tolist(), strict=True):
        assert_close(picture[:2], window[:, top:top + 8, left:left + 10])
    centre, _ = next(iter(Batches(data, 3, crop=(8, 10))))
    assert_close(centre[0, :2], window[:, 2:10, 2:12])
    with pytest.raises(ValueError, match="a crop of 13 x 10 does not fit into images of 12 x 15"):
        Batches(data, 3, crop=(13, 10))
