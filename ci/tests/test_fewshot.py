"""Few-shot: episodes and prototypes against loops, data sets in every form they come in, the best
epoch kept."""
import dataclasses
import functools
import hashlib
import os
import pickle

import numpy as np
import oracles
import pytest
import torch
from folders import refused
from torch.testing import assert_close

from sagelib import catalog, datasets, methods, models
from sagelib.bench import weights
from sagelib.data.batches import Batches
from sagelib.datasets import cifar_fs, mini_imagenet
from sagelib.evaluate import fewshot
from sagelib.evaluate.fewshot import Episodes
from sagelib.train import Recipe, Run, checkpoint, fit_together

refused = functools.partial(refused, name="mini_imagenet")


def test_an_episode_is_new_classes_with_support_and_queries_apart():
    labels = torch.arange(7).repeat_interleave(torch.tensor([20, 23, 20, 31, 20, 22, 25]))
    drawn = Episodes(ways=4, shots=3, queries=15, episodes=60, seed=5).draw(labels)
    assert drawn.shape == (60, 4, 18)
    for episode in drawn:
        classes = labels[episode]
        assert (classes == classes[:, :1]).all() and len(classes[:, 0].unique()) == 4
        assert len(episode.unique()) == 4 * 18
    # every class and most images get a turn
    assert len(labels[drawn].unique()) == 7 and len(drawn.unique()) > 150


def test_the_same_seed_draws_the_same_episodes():
    labels = torch.arange(6).repeat(30)
    one = Episodes(episodes=20, seed=1).draw(labels)
    assert torch.equal(one, Episodes(episodes=20, seed=1).draw(labels))
    assert torch.equal(one[:5], Episodes(episodes=5, seed=1).draw(labels))
    assert not torch.equal(one, Episodes(episodes=20, seed=2).draw(labels))


@pytest.mark.parametrize("given, labels, message", [
    (dict(ways=6), torch.arange(5).repeat(30),
     "an episode of 6 ways needs as many classes, here are 5"),
    (dict(shots=5), torch.arange(5).repeat(19),
     r"needs 20 images of a class \(5 shots, 15 queries\).*has 19"),
    (dict(shots=0), None, "shots is 0; it must be a whole number, at least 1"),
    (dict(ways=1), None, "ways is 1; it must be a whole number, at least 2"),
    (dict(episodes=2.5), None, "episodes is 2.5; it must be a whole number"),
    (dict(ways=5.0), None, "ways is 5.0; it must be a whole number"),
    (dict(shots=None), None, "shots is None; it must be a whole number"),
])
def test_too_little_is_one_clear_error(given, labels, message):
    with pytest.raises(ValueError, match=message) as caught:
        Episodes(**given).draw(labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("distance", fewshot.DISTANCES)
@pytest.mark.parametrize("shots", [1, 5])
def test_prototype_accuracies_equal_the_loop(distance, shots):
    g = torch.Generator().manual_seed(shots)
    labels = torch.arange(8).repeat(20)
    found = torch.randn(8, 12, generator=g)[labels] + 1.5 * torch.randn(160, 12, generator=g) + 2
    drawn = Episodes(ways=5, shots=shots, queries=9, episodes=53, seed=3).draw(labels)
    ours = fewshot.accuracies(found, drawn, shots, distance, chunk=10)
    slow = oracles.prototype_accuracies(found, drawn, shots, distance)
    assert_close(ours.double(), slow, atol=1e-4, rtol=0)
    assert 20 < ours.mean() < 95
    result = fewshot.evaluate(found, labels,
                              Episodes(ways=5, shots=shots, queries=9, episodes=53, seed=3),
                              distance)
    half = 1.96 * np.std(ours.double().numpy(), ddof=1) / 53**0.5
    assert result == dict(ways=5, shots=shots, queries=9, episodes=53, seed=3, distance=distance,
                          accuracy=pytest.approx(float(ours.mean()),
                                                 abs=1e-4), interval=pytest.approx(half, abs=1e-4))


@pytest.mark.parametrize("distance", fewshot.DISTANCES)
def test_the_validation_loss_is_the_cross_entropy_by_loop(distance):
    """Logits: 20 times the cosine, or minus the squared distance."""
    g = torch.Generator().manual_seed(4)
    labels = torch.arange(6).repeat(12)
    found = torch.randn(6, 7, generator=g)[labels] + 0.5 * torch.randn(72, 7, generator=g)
    episodes = Episodes(ways=4, shots=2, queries=5, episodes=23, seed=3)
    expected = []
    for episode in episodes.draw(labels):
        means = found[episode[:, :2]].mean(1)
        for own, row in enumerate(episode[:, 2:]):
            for q in found[row]:
                cosines = torch.cosine_similarity(q, means, dim=-1)
                squares = (q - means).square().sum(-1)
                logits = 20 * cosines if distance == "cosine" else -squares
                expected.append(float(logits.logsumexp(0) - logits[own]))
    measured = fewshot.validate(found, labels, episodes, distance)
    assert measured["val_loss"] == pytest.approx(np.mean(expected), rel=1e-4)
    accuracy = fewshot.evaluate(found, labels, episodes, distance)["accuracy"]
    assert measured["val_accuracy"] == accuracy and 30 < accuracy < 99.9
    each = fewshot.losses(found, episodes.draw(labels), 2, distance, chunk=10)
    assert_close(each.double(), torch.tensor(expected).view(23, -1).mean(1).double(), atol=1e-4,
                 rtol=1e-4)


def test_half_precision_does_not_blur_near_prototypes():
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat(20)
    found = 20 + torch.randn(5, 12, generator=g)[labels] + 0.1 * torch.randn(100, 12, generator=g)
    plain = fewshot.evaluate(found, labels, Episodes(episodes=20))
    with torch.autocast("cpu", torch.bfloat16):
        assert fewshot.evaluate(found, labels, Episodes(episodes=20)) == plain
    assert plain["accuracy"] > 95


def test_the_distances_differ_where_length_matters():
    support, query = torch.tensor([[[10.0, 0]], [[1, 1]]]), torch.tensor([[2.0, 0]])
    near = {d: fewshot.similarity(query, fewshot.prototypes(support), d) for d in fewshot.DISTANCES}
    assert near["cosine"].argmax() == 0 and near["euclidean"].argmax() == 1
    assert_close(near["euclidean"], torch.tensor([[-64.0, -2.0]]))
    assert fewshot.mean_interval(torch.tensor([50.0])) == (50.0, 0.0)
    with pytest.raises(ValueError, match="unknown distance 'l1'; known: cosine, euclidean"):
        fewshot.similarity(query, support[:, 0], "l1")


@pytest.mark.parametrize("name", catalog.names(models))
def test_features_are_what_enters_the_last_layer(name):
    _, _, test = catalog.load(datasets, "shapes_fs", each=3)
    options = {"width": 8} if "width" in catalog.defaults(models, name) else {}
    net = catalog.load(models, name, classes=5, **options).train()
    last = [m for m in net.modules() if isinstance(m, torch.nn.Linear)][-1]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = fewshot.features(net, test, batch=7)
    assert net.training and not last._forward_pre_hooks
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert_close(last(found), net.eval()(test.normalised()), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="ends with a linear layer"):
        fewshot.features(torch.nn.Flatten(), test)


def test_features_of_a_crop_are_those_of_the_centre():
    _, _, test = catalog.load(datasets, "shapes_fs", each=2)
    net = catalog.load(models, "resnet12", classes=5, width=4)
    larger = test.resized(37, 37)
    cut = dataclasses.replace(larger, images=larger.images[:, :, 2:34, 2:34].contiguous())
    assert_close(fewshot.features(net, larger, crop=(32, 32)), fewshot.features(net, cut))
    assert not torch.allclose(fewshot.features(net, larger), fewshot.features(net, cut))


def test_resnet12_has_the_usual_number_of_parameters_and_shrinks_images_16_times():
    net = catalog.load(models, "resnet12", classes=64)
    assert sum(p.numel() for p in net.parameters()) == 12_424_320 + 640 * 64 + 64
    net, x = catalog.load(models, "resnet12", classes=5, width=4), torch.randn(3, 3, 32, 48)
    for stage in net.stages:
        x = stage(x)
    assert x.shape == (3, 40, 2, 3)


# data sets

def test_few_shot_shapes_share_no_class_and_come_back_the_same():
    parts = catalog.load(datasets, "shapes_fs", each=7)
    again = catalog.load(datasets, "shapes_fs", each=7)
    assert [len(p.classes) for p in parts] == [16, 6, 6]
    assert len({name for p in parts for name in p.classes}) == 28
    for part, twin in zip(parts, again, strict=True):
        assert torch.equal(part.images, twin.images)
        assert part.labels.bincount().tolist() == [7] * len(part.classes)
    assert parts.train.mean == parts.val.mean == parts.test.mean
    assert parts.train.std == parts.val.std == parts.test.std
    assert_close(parts.train.normalised().mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    assert not torch.equal(parts.train.images,
                           catalog.load(datasets, "shapes_fs", each=7, seed=1).train.images)
    with pytest.raises(ValueError, match="at least 1 image a class"):
        catalog.load(datasets, "shapes_fs", each=0)


def test_cifar_fs_is_bertinettos_split_of_both_halves_of_cifar100(cifar_tree):
    names = sorted([*cifar_fs.VAL, *cifar_fs.TEST, *(f"other{k:02d}" for k in range(64))])
    parts = catalog.load(datasets, "cifar_fs", root=cifar_tree("cifar100", names))
    assert [len(p.classes) for p in parts] == [64, 16, 20]
    assert parts.val.classes == tuple(cifar_fs.VAL)
    assert "whale" in parts.test.classes and "sea" in parts.val.classes
    assert "other00" in parts.train.classes
    for part in parts:
        assert part.labels.bincount().tolist() == [2] * len(part.classes)
        for image, label in zip(part.images, part.labels, strict=True):
            assert names[image[0, 0, 0]] == part.classes[label] and image[1, 0, 0] in (0, 100)


@pytest.mark.parametrize("names, digest", [(cifar_fs.VAL, "a4d5a75dcb3fc7d1"),
                                           (cifar_fs.TEST, "fa4f899ce87368b0"),
                                           (mini_imagenet.CLASSES["train"], "be048a0de45b4bc4"),
                                           (mini_imagenet.CLASSES["val"], "5124b4fddbb708d8"),
                                           (mini_imagenet.CLASSES["test"], "460d8d798f59aaa1")])
def test_the_class_lists_are_those_of_the_splits_authors(names, digest):
    """Of the sorted names, as the published lists have them."""
    assert hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()[:16] == digest


@pytest.fixture(autouse=True)
def two_images_a_class(monkeypatch):
    """60,000 images are not made here: the count is the one thing the tests of mini-ImageNet
    change."""
    monkeypatch.setattr(mini_imagenet, "EACH", 2)


TREE = [(split, name, n)
        for split, names in mini_imagenet.CLASSES.items()
        for name in names
        for n in range(2)]


def one_image(split, name, n):
    """An image of one colour that says which it is: its class index, its own, its split's."""
    colour = (mini_imagenet.CLASSES[split].index(name), n, list(mini_imagenet.CLASSES).index(split))
    return np.broadcast_to(np.uint8(colour), (84, 84, 3))


def as_folders(top, flat=False):
    from PIL import Image
    for split, name, n in TREE:
        folder = top / name if flat else top / split / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(one_image(split, name, n))).save(
            folder / f"{name}{n:08d}.png")


def as_list(top):
    from PIL import Image
    (top / "images").mkdir(parents=True)
    for split in mini_imagenet.CLASSES:
        rows = ["filename,label"]
        for _, name, n in [t for t in TREE if t[0] == split]:
            Image.fromarray(np.ascontiguousarray(one_image(split, name, n))).resize((126, 84)).save(
                top / "images" / f"{name}{n:08d}.png")
            rows.append(f"{name}{n:08d}.png,{name}")
        (top / f"{split}.csv").write_text("\n".join(rows) + "\n")


def as_pickles(top, form, protocol=4):
    top.mkdir(parents=True)
    for split, names in mini_imagenet.CLASSES.items():
        images = np.stack([one_image(*t) for t in TREE if t[0] == split])
        if form == 0:
            data = {"image_data": images,
                    "class_dict": {name: [2 * k, 2 * k + 1] for k, name in enumerate(names)}}
        else:
            start = {"train": 0, "val": 64, "test": 80}[split]
            data = {"data": images, "labels": [start + k // 2 for k in range(len(images))]}
        (top /
         mini_imagenet.PICKLES[split][form]).write_bytes(pickle.dumps(data, protocol=protocol))


@pytest.mark.parametrize(
    "make", [
        as_folders, lambda top: as_folders(top, flat=True), as_list, lambda top: as_pickles(top, 0),
        lambda top: as_pickles(top, 0, protocol=2), lambda top: as_pickles(top, 1),
        lambda top: as_pickles(top, 1, protocol=5),
    ], ids=["folders", "flat folders", "csv", "cache pickles", "protocol 2", "split pickles",
            "protocol 5"])
def test_mini_imagenet_in_every_usual_form(make, tmp_path):
    make(tmp_path / "mini_imagenet")
    parts = catalog.load(datasets, "mini_imagenet", root=tmp_path)
    assert [len(p.classes) for p in parts] == [64, 16, 20] and parts.train.classes[0] == "n01532829"
    for k, part in enumerate(parts):
        assert part.images.shape == (2 * len(part.classes), 3, 84, 84)
        assert part.images.dtype == torch.uint8
        assert torch.equal(part.images[:, 0, 40, 40].long(), part.labels)
        assert part.images[:, 1, 40, 40].tolist() == [0, 1] * len(part.classes)
        assert (part.images[:, 2, 40, 40] == k).all()


def test_labels_with_names_of_their_own_are_taken_by_name(tmp_path):
    as_pickles(tmp_path / "mini_imagenet", 1)
    file = tmp_path / "mini_imagenet" / mini_imagenet.PICKLES["val"][1]
    names = mini_imagenet.CLASSES["val"]
    number = {name: 79 - k for k, name in enumerate(names)}  # counted backwards
    images = np.stack([one_image(*t) for t in TREE if t[0] == "val"])
    labels = [number[name] for name in names for _ in range(2)]
    file.write_bytes(pickle.dumps({"data": images, "labels": labels, "catname2label": number}))
    val = catalog.load(datasets, "mini_imagenet", root=tmp_path).val
    assert torch.equal(val.images[:, 0, 40, 40].long(), val.labels)


class Forged:
    """A pickle of an array of objects, whose addresses would be the bytes that are given."""

    def __reduce__(self):
        kind = np.dtype([("a", object)])
        return np.array([0], dtype=kind).__reduce__()


class Trap:
    """A pickle that would make a folder when it is opened."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    as_pickles(tmp_path / "mini_imagenet", 0)
    file = tmp_path / "mini_imagenet" / mini_imagenet.PICKLES["val"][0]
    file.write_bytes(pickle.dumps({"image_data": Trap(tmp_path / "sprung"), "class_dict": {}}))
    refused(tmp_path, r"val\.pkl is not opened \(it asks for (posix|nt)\.mkdir, which no data "
                      r"needs\)")
    assert not (tmp_path / "sprung").exists()
    file.write_bytes(file.read_bytes()[:40])
    refused(tmp_path, r"val\.pkl is not opened")


def images_of(n, classes=None, size=84):
    """A pickle of n black images, with which images each class has."""
    more = {} if classes is None else {"class_dict": classes}
    return pickle.dumps({"image_data": np.zeros((n, size, size, 3), np.uint8), **more})


EIGHT = (b"cnumpy\ndtype\n(VV8\nI0\nI1\ntR(I3\nV|\nN(Va\nt(dVa\n"
         b"(cnumpy\ndtype\n(VO\ntRI0\ntsI8\nI1\nI0\ntb.")
GROUPS = {name: [0, 1] for name in mini_imagenet.CLASSES["val"]}
PICKLES = {
    "objects by address": (pickle.dumps({"image_data": Forged()}), r"an array .* is no plain data"),
    "objects": (pickle.dumps({"image_data": np.array([{}], dtype=object)}),
                r"an array .* is no plain data"),
    "fields": (pickle.dumps({"image_data": np.zeros(2, [("a", int)])}),
               r"an array .* is no plain data"),
    "a forged type": (EIGHT, r"is not opened \(an array of 'V8' is no plain data"),
    "a list": (pickle.dumps([1, 2]), "holds a list, not a dict"),
    "small images": (images_of(3, size=32), "no uint8 images of 84 x 84"),
    "too few classes": (
        pickle.dumps({"data": np.zeros((3, 84, 84, 3), np.uint8), "labels": [1, 1, 2]}),
        "3 labels of 2 classes for 3 images; mini-ImageNet has 16 classes here"),
    "images named twice": (images_of(32, GROUPS), "does not name each of the 32 images once"),
    "a list of groups": (images_of(32, [1]), "class_dict is a list"),
    "texts": (images_of(32, {**GROUPS, "n01855672": ["x"]}), "does not hold indices of images"),
    "a class 7": (images_of(32, {7: [0]}), "the class 7 is not one of mini-ImageNet's 16 of val"),
}


@pytest.mark.parametrize("content", PICKLES)
def test_a_pickle_of_anything_else_is_one_clear_error(content, tmp_path):
    as_pickles(tmp_path / "mini_imagenet", 0)
    data, message = PICKLES[content]
    (tmp_path / "mini_imagenet" / mini_imagenet.PICKLES["val"][0]).write_bytes(data)
    refused(tmp_path, rf"(val\.pkl.*)?{message}")


def test_no_mini_imagenet_is_named(tmp_path):
    refused(tmp_path, "neither train/CLASS.* nor images/ with train.csv", FileNotFoundError)
    refused(None, "mini_imagenet needs root: the folder it is in")


@pytest.mark.parametrize("change, message", [
    (lambda rows: rows.replace("n01855672", "n00000000"),
     "the class 'n00000000' is not one of mini-ImageNet's 16 of val"),
    (lambda rows: rows.rsplit(",", 1)[0] + "\n", r"val\.csv: line 33 lacks a filename or a label"),
    (lambda rows: rows.rsplit("\n", 2)[0] + "\n",
     "the class 'n09256479' has 1 images, mini-ImageNet has 2 of each"),
    (lambda rows: "image\n1.png\n", r"val\.csv must have the columns filename and label"),
], ids=["class", "field", "row", "header"])
def test_a_damaged_list_of_mini_imagenet_is_named(change, message, tmp_path):
    as_list(tmp_path)
    (tmp_path / "val.csv").write_text(change((tmp_path / "val.csv").read_text()))
    refused(tmp_path, message)


def test_a_damaged_image_and_a_missing_list_of_mini_imagenet_are_named(tmp_path):
    as_list(tmp_path)
    (tmp_path / "images/n0185567200000001.png").write_text("no image")
    refused(tmp_path, r"n0185567200000001\.png cannot be read as an image")
    (tmp_path / "val.csv").unlink()
    refused(tmp_path, r"val\.csv is missing beside train\.csv", FileNotFoundError)


def test_an_empty_class_of_mini_imagenet_is_named(tmp_path):
    as_folders(tmp_path)
    for file in (tmp_path / "test/n01930112").iterdir():
        file.unlink()
    refused(tmp_path, "n01930112 has no image that Pillow reads")


# the epoch that is chosen

def test_the_best_epoch_is_kept_and_survives_a_restart(tiny, tmp_path):
    train, val, _ = catalog.load(datasets, "shapes_fs", each=4)
    values = [30.0, 50.0, 40.0, 50.0, 60.0]

    def started(epochs_done):
        net = tiny(classes=16)
        return Run(net, Batches(train, 16, generator=torch.Generator().manual_seed(0)),
                   catalog.load(methods, "sage").seed(0), Recipe(epochs=5),
                   tmp_path / f"{epochs_done}.pt", select="val_accuracy")

    class Stopped(Exception):
        pass

    def scored(log, stop_at=9):
        def validate(net):
            if len(log) == stop_at:
                raise Stopped
            log.append({k: v.clone() for k, v in net.state_dict().items()})
            return {"val_accuracy": values[len(log) - 1], "seen": len(val)}
        return validate

    log, whole = [], started("whole")
    curve, = fit_together([whole], scored(log))
    assert [e["val_accuracy"] for e in curve] == values and curve[0]["seen"] == len(val)
    assert all(torch.equal(whole.best[k], v) for k, v in log[4].items())
    again, broken = [], started("broken")
    with pytest.raises(Stopped):
        fit_together([broken], scored(again, stop_at=4))
    assert all(torch.equal(broken.best[k], v) for k, v in log[1].items())  # the first of equals
    resumed = started("broken")
    checkpoint.restore(resumed)
    assert all(torch.equal(resumed.best[k], v) for k, v in log[1].items())
    kept = weights.load(tiny(classes=16, seed=1), tmp_path / "broken.pt").state_dict()
    assert all(torch.equal(kept[k], v) for k, v in log[1].items())
    fit_together([resumed], scored(again))
    assert all(torch.equal(resumed.best[k], v) for k, v in whole.best.items())
    assert all(
        torch.equal(v, whole.net.state_dict()[k]) for k, v in resumed.net.state_dict().items())
    other = started("broken")
    other.select = None
    with pytest.raises(ValueError, match="its select is val_accuracy, this run's None"):
        checkpoint.restore(other)
    with pytest.raises(ValueError, match="chosen by 'val_accuracy', which is not in the curve: "
                                         "epoch, lr, train_loss"):
        fit_together([started("without")])
