"""The paper's numbers in book/reported against its tables as printed."""
from pathlib import Path

import pytest

from sagelib import catalog, methods, models, records

TEXT = (Path(__file__).parent / "paper_tables.txt").read_text()
PRINTED = [[cell.strip() for cell in line.split("|")] for line in TEXT.splitlines() if line.startswith("Table")]
NAMES = {"Vanilla": "vanilla", "Mixup": "mixup", "CutMix": "cutmix", "Manifold": "manifold_mixup",
         "SaliencyMix": "saliencymix", "Puzzle Mix": "puzzlemix", "Co-Mixup": "comixup", "SAGE": "sage",
         "CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "CIFAR10": "cifar10", "CIFAR100": "cifar100",
         "mini-ImageNet": "mini_imagenet", "PreActResNet18": "preactresnet18", "WRN16": "wrn16_8",
         "ResNext29": "resnext29_4_24", "ResNet12": "resnet12", "SAGE w/o SM": "without saliency-guided mixup",
         "SAGE w/o OR": "without rearrangement", "Rank": "rank", "FGSM": "fgsm", "FGM": "fgm", "Gaussian": "gaussian",
         "1%": "1 %", "10%": "10 %", "50%": "50 %", "100%": "100 %"}


def number(cell):
    try:
        return float(cell)
    except ValueError:
        return NAMES.get(cell, cell)


@pytest.mark.parametrize("table", range(1, 8))
def test_every_number_is_the_papers(table):
    header, *rows = [row[1:] for row in PRINTED if row[0] == f"Table {table}"]
    keys = [NAMES.get(name, name) for name in header]
    assert records.reported(table) == [dict(zip(keys, map(number, row), strict=True)) for row in rows]


def test_the_rows_and_columns_are_names_that_users_type():
    for row in (*records.reported(1), *records.reported(2), *records.reported(6)):
        assert row["model"] in catalog.names(models) and set(row) - {"dataset", "model"} <= set(catalog.names(methods))
