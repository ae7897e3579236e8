"""Wrong input gets one clear error that says what is wrong and what to do. One row a kind."""
import re

import pytest
import torch
from folders import refused

from sagelib import catalog, datasets, methods, models
from sagelib.bench import records
from sagelib.data.batches import Batches
from sagelib.evaluate import corruptions, robustness, scores
from sagelib.methods import (
    comixup,
    cutmix,
    cutout,
    guidedmixup,
    keepaugment,
    mixup,
    puzzlemix,
    rmix,
    sage,
    saliencymix,
)
from sagelib.rearrange import best_offset, offsets, shift, total_saliency
from sagelib.saliency import normalise, saliency, smooth
from sagelib.train import Recipe

X, Y, S, PAIR = torch.zeros(4, 3, 6, 8), torch.eye(4), torch.ones(4, 1, 6, 8), torch.arange(4)
TAU = torch.zeros(1, 2, dtype=torch.long)

CASES = [
    (lambda: catalog.load(methods, "sagee"),
     "unknown method 'sagee' (did you mean 'sage'?); known:"),
    (lambda: catalog.load(models, "resnet", classes=10), "unknown model 'resnet' (did you mean"),
    (lambda: catalog.load(datasets, "imagenet"), "known: cifar10, cifar100, cifar_fs, folder,"),
    (lambda: catalog.load(methods, "sage", eta=0.7), "sage has no option 'eta'; it has: "),
    (lambda: catalog.load(methods, "sage", fractoin=1), "did you mean 'fraction'?"),
    (lambda: catalog.settings(methods, "sage", "mine", "cifar10", "x"), "known: default, paper"),
    (lambda: sage.Sage(u=1.5), "Sage: u is 1.5; it must be a number from 0 to 1"),
    (lambda: sage.Sage(reuse="0.3"), "Sage: reuse is '0.3'; it must be a number from 0 to 1"),
    (lambda: sage.Sage(sigma=float("nan")),
     "Sage: sigma is nan; it must be a number from 0 to 100"),
    (lambda: sage.Sage(norm="l3"), "Sage: norm is 'l3'; it must be one of 'l2', 'l1'"),
    (lambda: sage.Sage(guided="no"), "Sage: guided is 'no'; it must be True or False"),
    (lambda: cutmix.CutMix(alpha=-1), "CutMix: alpha is -1; it must be a number from 0 to 100"),
    (lambda: saliency(X[0]), "a gradient of shape (B, C, H, W), not (3, 6, 8)"),
    (lambda: saliency(X, "max"), "unknown saliency norm 'max'; known: l2, l1"),
    (lambda: smooth(S, -1), "sigma is -1; it must be a finite number of pixels, at least 0"),
    (lambda: normalise(X), "maps of shape (B, 1, H, W), not (4, 3, 6, 8)"),
    (lambda: offsets(0, 5), "at least one row and one column, not 0 x 5"),
    (lambda: shift(X, torch.zeros(2)), "tau must be integers of shape (2,) or (4, 2)"),
    (lambda: shift(X, TAU.expand(3, 2)), "(2,) or (4, 2), not torch.int64 (3, 2)"),
    (lambda: total_saliency(S, S[..., 1:], TAU), "one shape (B, 1, H, W), not (4, 1, 6, 8)"),
    (lambda: best_offset(S, S, TAU[:0]), "with at least one candidate"),
    (lambda: mixup.mix(X, PAIR, PAIR, 0.5), "one_hot(labels, classes) makes them"),
    (lambda: mixup.mix(X, Y[:3], PAIR, 0.5), "shape (4, K), not torch.float32 (3, 4)"),
    (lambda: mixup.mix(X.byte(), Y, PAIR, 0.5), "floats of shape (B, C, H, W), not torch.uint8"),
    (lambda: mixup.mix(X, Y, PAIR[:2], 0.5), "integers of shape (4,), not torch.int64 (2,)"),
    (lambda: mixup.mix(X, Y, PAIR, torch.ones(3)), "or one for each of the 4 images"),
    (lambda: cutmix.mix(X, Y, PAIR, (1, 2, 3)), "top, left, bottom, right: four numbers, or four"),
    (lambda: cutmix.mix(X, Y, PAIR, torch.zeros(3, 4)),
     "four for each of the 4 images, not (3, 4)"),
    (lambda: cutout.mix(X, Y, torch.zeros(3, 4)), "for each of the 4 images, not (3, 4)"),
    (lambda: puzzlemix.mix(X, Y, S[:3], PAIR, 0.5, 2),
     "must be of shape (4, 1, 6, 8), not (3, 1, 6"),
    (lambda: puzzlemix.mix(X, Y, S, PAIR, 0.5, 0), "blocks is 0; it must be a whole number"),
    (lambda: comixup.mix(X, Y, S, torch.ones(3), PAIR, PAIR),
     "for 4 images of 6 x 8: saliency (4, 1"),
    (lambda: guidedmixup.mix(X, Y, S[:, :, 1:], PAIR), "must be of shape (4, 1, 6, 8)"),
    (lambda: rmix.mix(X, Y, S[1:], PAIR, 0.5, 0.5), "must be of shape (4, 1, 6, 8), not (3, 1,"),
    (lambda: rmix.mix(X, Y, S, PAIR, 0.5, 0.5, 1.5), "cells is 1.5; it must be a whole number"),
    (lambda: rmix.mix(X, Y, S, PAIR, 0.5, torch.ones(3)), "threshold must be one number or one"),
    (lambda: rmix.RMix(cells=65), "RMix: cells is 65; it must be a whole number from 0 to 64"),
    (lambda: keepaugment.boxes(S, 0.5, 0.6, torch.ones(4, 3)), "keys must be (4, 20), not (4, 3)"),
    (lambda: catalog.load(methods, "manifold_mixup", stages=1.5),
     "must be a whole number from 0 to 100"),
    (lambda: saliencymix.SaliencyMix(std=(0.2, 0, 0.2)),
     "must be a number above 0, or one for each"),
    (lambda: saliencymix.SaliencyMix(detector="cv"), "it must be one of 'builtin', 'opencv'"),
    (lambda: catalog.load(models, "wrn16_8", classes=5, width=0), "a widening of 1, not 5 and 0"),
    (lambda: sage.mix(X, Y, S[..., 1:], PAIR, 0.5, TAU), "must be of shape (4, 1, 6, 8)"),
    (lambda: catalog.load(models, "preactresnet18", classes=1), "at least 2 classes and 1 channel"),
    (lambda: catalog.load(models, "preactresnet18", classes=2, width=0), "1 channel, not 2 and 0"),
    (lambda: Recipe(epochs=0), "epochs is 0; it must be a whole number, at least 1"),
    (lambda: Recipe(lr=-1), "lr must be above 0"),
    (lambda: Recipe(precision="int8"), "unknown precision 'int8'; known: fp32, bf16, fp16"),
    (lambda: catalog.load(datasets, "shapes", difficulty=2),
     "difficulty is 2; it must be a number"),
    (lambda: catalog.load(datasets, "shapes", train=3), "at least 10 images in each set"),
    (lambda: corruptions.corrupt(X.byte(), "fog", 2.5, None),
     "severity is 2.5; it is 1, 2, 3, 4 or 5"),
    (lambda: robustness.pgd(None, X, PAIR, -0.03, 0.01, 5),
     "epsilon is -0.03; it must be a number, 0 or more"),
    (lambda: robustness.pgd(None, X, PAIR, 0.03, 0.01, 0),
     "steps is 0; it must be a whole number, at least 1"),
    (lambda: catalog.load(datasets, "cifar10", root=None), "cifar10 needs root"),
    (lambda: catalog.load(datasets, "folder", root="nowhere"), "no folder nowhere; give"),
    (lambda: records.validate({}), "is a required property"),
    (lambda: records.validate([]), "at the top: [] is not of type 'object'"),
]


@pytest.mark.parametrize("act, message", CASES, ids=[message for _, message in CASES])
def test_one_clear_error(act, message):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_an_empty_class_is_named(image_folder):
    for file in (image_folder / "test/cat").iterdir():
        file.unlink()
    refused(image_folder, r"test/cat has no image")


def test_test_images_of_another_size_are_named(image_folder):
    from PIL import Image
    Image.new("RGB", (12, 12)).save(image_folder / "test/cat/0.png")
    refused(image_folder, r"test/cat/0\.png is 12 x 12 pixels")


def test_a_class_that_was_not_trained_is_named(image_folder):
    (image_folder / "test/emu").mkdir()
    refused(image_folder, "has the class 'emu' that the training set does not have")


def test_a_missing_test_split_is_named(image_folder):
    (image_folder / "test").rename(image_folder / "elsewhere")
    refused(image_folder, "there is no folder .*test", FileNotFoundError)


def test_a_tree_with_one_class_is_refused(image_folder):
    (image_folder / "train/dog").rename(image_folder / "dog")
    refused(image_folder, r"train has 1 class folder\(s\); a data set needs two or more")


@pytest.mark.parametrize("act, message", [
    (lambda train: Batches(train, 0), "at least 1 image and a padding of 0 or more, not 0 and 2"),
    (lambda train: scores(torch.nn.Flatten(), []), "there is no batch to evaluate on"),
    (lambda train: train.subset(41), r"10 \(one a class\) to 40 images, not 41"),
], ids=["batches", "scores", "subset"])
def test_no_image_at_all_is_one_clear_error(act, message, shapes):
    with pytest.raises(ValueError, match=message):
        act(shapes[0])
