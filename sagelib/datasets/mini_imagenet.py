"""mini-ImageNet, few-shot: 64 + 16 + 20 classes of ImageNet, 600 images each, 84 x 84.

O. Vinyals et al., NeurIPS 2016; the classes are those of S. Ravi, H. Larochelle, "Optimization as a
Model for Few-Shot Learning", ICLR 2017. Bring your own copy, in any of its usual forms, at
ROOT/mini_imagenet or ROOT:
- folders, train/CLASS/*.jpg, val/…, test/…, or all 100 class folders side by side, CLASS a WordNet
  id;
- images/ with train.csv, val.csv and test.csv (columns filename, label);
- pickles, mini-imagenet-cache-train.pkl, …-val.pkl, …-test.pkl, or
  miniImageNet_category_split_*.pickle. They are read without executing anything.

Images of another size are resized, shorter side to 84, and cut at the centre. Files are read as
`folder` reads them.
"""
import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from ..data.few_shot import FewShot
from ..data.image_files import image_files, warn_left_out
from ..data.images import read_image
from ..data.safe_pickle import load_arrays
from ..machine import cores

SIZE, EACH = 84, 600
# held out: the validation classes
IMAGES = dict(train=64 * EACH, held_out=16 * EACH, height=SIZE, width=SIZE)
CLASSES = {
    "train": """
        n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747 n02074367 n02089867
        n02091831 n02101006 n02105505 n02108089 n02108551 n02108915 n02111277 n02113712 n02120079
        n02165456 n02457408 n02606052 n02687172 n02747177 n02795169 n02823428 n02966193 n03017168
        n03047690 n03062245 n03207743 n03220513 n03337140 n03347037 n03400231 n03476684 n03527444
        n03676483 n03838899 n03854065 n03888605 n03908618 n03924679 n03998194 n04067472 n04243546
        n04251144 n04258138 n04275548 n04296562 n04389033 n04435653 n04443257 n04509417 n04515003
        n04596742 n04604644 n04612504 n06794110 n07584110 n07697537 n07747607 n09246464 n13054560
        n13133613""".split(),
    "val": """
        n01855672 n02091244 n02114548 n02138441 n02174001 n02950826 n02971356 n02981792 n03075370
        n03417042 n03535780 n03584254 n03770439 n03773504 n03980874 n09256479""".split(),
    "test": """
        n01930112 n01981276 n02099601 n02110063 n02110341 n02116738 n02129165 n02219486 n02443484
        n02871525 n03127925 n03146219 n03272010 n03544143 n03775546 n04146614 n04149813 n04418357
        n04522168 n07613480""".split(),
}
PICKLES = {  # split -> the names its file goes by
    "train": ("mini-imagenet-cache-train.pkl",
              "miniImageNet_category_split_train_phase_train.pickle"),
    "val": ("mini-imagenet-cache-val.pkl", "miniImageNet_category_split_val.pickle"),
    "test": ("mini-imagenet-cache-test.pkl", "miniImageNet_category_split_test.pickle"),
}


def load(root: str | Path) -> FewShot:
    """Training, validation and test classes. FileNotFoundError lists the forms that are read."""
    if root is None:
        raise ValueError("mini_imagenet needs root: the folder it is in (it cannot be downloaded)")
    found = FewShot.of(_parts(root))
    for part in found:
        counts = part.labels.bincount(minlength=len(part.classes)).tolist()
        for name, count in zip(part.classes, counts, strict=True):
            if count != EACH:
                raise ValueError(f"{root}: the class {name!r} has {count} images, mini-ImageNet "
                                 f"has {EACH} of each; unpack it again")
    return found


def _parts(root):
    """(images, labels, class names) of the three splits, in whichever form they are there."""
    for top in (Path(root) / "mini_imagenet", Path(root)):
        for k in range(2):
            files = {split: top / names[k] for split, names in PICKLES.items()}
            if all(file.exists() for file in files.values()):
                return [_from_pickle(file, split) for split, file in files.items()]
        if (top / "train.csv").exists():
            return [_from_list(top, split) for split in CLASSES]
        if (top / "train").is_dir():
            return [_from_folders(top / split, split) for split in CLASSES]
        if (top / CLASSES["train"][0]).is_dir():
            return [_from_folders(top, split) for split in CLASSES]
    raise FileNotFoundError(
        f"no mini-ImageNet under {root}: neither train/CLASS/*.jpg beside val/ and test/, nor the "
        "100 class folders, nor images/ with train.csv, val.csv, test.csv, nor "
        f"{', '.join(names[0] for names in PICKLES.values())}")


def _from_folders(folder, split):
    named, left_out = [], []
    for name in CLASSES[split]:
        images, others = [], []
        if (folder / name).is_dir():
            images, others = image_files(folder / name)
        if not images:
            raise ValueError(f"{folder / name} has no image that Pillow reads (.jpg, .png and "
                             f"others); mini-ImageNet has that class among those of {split}")
        named += [(file, name) for file in images]
        left_out += others
    warn_left_out(folder, [file for file, _ in named], left_out)
    return _read(named, split, folder)


def _from_list(top, split):
    file = top / f"{split}.csv"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing beside train.csv")
    with open(file, newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    if not rows or not {"filename", "label"} <= set(rows[0]):
        raise ValueError(f"{file} must have the columns filename and label, and a row for each "
                         "image")
    short = [n for n, row in enumerate(rows, 2) if not (row["filename"] and row["label"])]
    if short:
        raise ValueError(f"{file}: line {short[0]} lacks a filename or a label")
    named = [(top / "images" / row["filename"], row["label"]) for row in rows]
    return _read(named, split, file)


def _read(named, split, place):
    """All images of a split, from (file, class name) of each."""
    _same_classes({name for _, name in named}, split, place)
    with ThreadPoolExecutor(cores()) as pool:
        images = list(pool.map(_square, [file for file, _ in named]))
    index = {name: k for k, name in enumerate(CLASSES[split])}
    labels = torch.tensor([index[name] for _, name in named])
    images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # (N, 3, SIZE, SIZE)
    return images.contiguous(), labels, CLASSES[split]


def _square(file):
    """The image in a file as uint8 (SIZE, SIZE, 3), its shorter side resized, cut at the centre."""
    from PIL import Image, ImageOps

    image = read_image(file)
    if image.shape[:2] == (SIZE, SIZE):
        return image
    return np.asarray(ImageOps.fit(Image.fromarray(image), (SIZE, SIZE), Image.Resampling.BILINEAR))


def _from_pickle(file, split):
    found = load_arrays(file)
    images = found.get("image_data", found.get("data"))
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8
            and images.shape[1:] == (SIZE, SIZE, 3)):
        raise ValueError(f"{file} holds no uint8 images of {SIZE} x {SIZE} under image_data or "
                         "data; is it mini-ImageNet?")
    if "class_dict" in found:
        labels = _by_name(found["class_dict"], split, file, len(images))
    else:
        labels = _by_number(found, split, file, len(images))
    images = torch.from_numpy(np.require(images, requirements="W"))  # a buffer is read-only
    return images.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels), CLASSES[split]


def _by_name(groups, split, file, count):
    """Class indices from a dict, WordNet id -> which images."""
    if not isinstance(groups, dict):
        raise ValueError(f"{file}: class_dict is a {type(groups).__name__}, not a dict of classes")
    _same_classes(set(groups), split, file)
    try:
        members = [np.asarray(groups[name], np.int64).reshape(-1) for name in CLASSES[split]]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: class_dict does not hold indices of images ({error})") from error
    every = np.concatenate(members)
    if not np.array_equal(np.sort(every), np.arange(count)):
        raise ValueError(f"{file}: class_dict does not name each of the {count} images once")
    labels = np.empty(count, np.int64)
    labels[every] = np.repeat(np.arange(len(members)), [len(m) for m in members])
    return labels


def _by_number(found, split, file, count):
    """Class indices from a list of labels, by the file's names for them, else in their order."""
    values, labels = np.unique(np.asarray(found.get("labels", ())).reshape(-1), return_inverse=True)
    if len(values) != len(CLASSES[split]) or len(labels) != count:
        raise ValueError(f"{file} has {len(labels)} labels of {len(values)} classes for {count} "
                         f"images; mini-ImageNet has {len(CLASSES[split])} classes here")
    named = found.get("catname2label")
    if (isinstance(named, dict) and set(named) == set(CLASSES[split])
            and set(named.values()) == set(values.tolist())):
        order = {number: CLASSES[split].index(name) for name, number in named.items()}
        labels = np.asarray([order[value] for value in values.tolist()])[labels]
    return labels


def _same_classes(names, split, place):
    wrong = sorted(names ^ set(CLASSES[split]), key=str)
    if wrong:
        what = "missing" if wrong[0] in CLASSES[split] else "not one"
        raise ValueError(f"{place}: the class {wrong[0]!r} is {what} of mini-ImageNet's "
                         f"{len(CLASSES[split])} of {split} (Ravi and Larochelle's split)")
