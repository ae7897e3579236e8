"""The demo's numbers against loops over pixels, and what its command says where something is
missing. That it runs as printed is tested with the other commands."""
import sys

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import sagelib
from sagelib import __main__ as command
from sagelib import demo, models, teaching
from sagelib.catalog import load
from sagelib.datasets import photographs
from sagelib.method import Mixed


def slow_kept(mixed, maps):
    """Equation 4's total saliency, pixel by pixel, the mean over the batch."""
    total, (batch, _, height, width) = 0.0, maps.shape
    for b in range(batch):
        down, right = (0, 0) if mixed.tau is None else mixed.tau[b].tolist()
        for i in range(height):
            for j in range(width):
                m, partner = float(mixed.mask[b, 0, i, j]), 0.0
                if 0 <= i - down < height and 0 <= j - right < width:
                    partner = float(maps[mixed.pair[b], 0, i - down, j - right])
                total += m * float(maps[b, 0, i, j]) + (1 - m) * partner
    return total / batch


@pytest.mark.parametrize("moved", [False, True])
def test_what_is_kept_is_equation_4_for_the_mask_that_was_used(moved):
    g = torch.Generator().manual_seed(0)
    maps, mask = (torch.rand(3, 1, 6, 8, generator=g) for _ in range(2))
    maps = maps / maps.sum((1, 2, 3), keepdim=True)
    tau = torch.tensor([[1, -2], [0, 3], [-4, 0]]) if moved else None
    mixed = Mixed(maps, maps, mask=mask, tau=tau, pair=torch.tensor([2, 0, 1]))
    assert_close(torch.tensor(demo.kept(mixed, maps)), torch.tensor(slow_kept(mixed, maps)))
    assert demo.kept(Mixed(maps, maps, pair=mixed.pair), maps) is None


@pytest.fixture
def untrained(monkeypatch):
    """Few small photographs and an untrained network, in the place of the trained one."""
    def small(seed=0):
        _, test = photographs.load(train=7, test=40, size=32, seed=seed)
        torch.manual_seed(seed)
        return test, load(models, "preactresnet18", classes=7, width=4).eval()

    monkeypatch.setattr(teaching, "photographs", small)
    monkeypatch.setattr(demo, "IMAGES", 12)


def test_every_method_has_a_column_and_a_number_or_a_dash(untrained, tmp_path):
    found = demo.run(tmp_path / "deep" / "grid.png")
    assert {"sage", "mixup", "comixup", "rmix"} <= found.keys()
    assert not {"vanilla", "sage_controls", "transmix"} & found.keys()
    for name in ("mixup", "cutmix"):
        assert found[name] == pytest.approx(1, abs=0.3)
    assert found["mixup"] == pytest.approx(1) and found["cutout"] is None
    assert found == demo.run(tmp_path / "again.png") and plain(found)
    with Image.open(tmp_path / "deep" / "grid.png") as image:
        assert image.width > 100 * len(found) and image.height > 300
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".part")]


def plain(found):
    """Whether the table has the largest number first and the dashes last."""
    values = [line.split()[1] for line in demo.table(found).splitlines()]
    numbers = [float(v) for v in values if v != "-"]
    return numbers == sorted(numbers, reverse=True) and values[len(numbers):] == ["-"] * (
        len(values) - len(numbers))


def test_the_command_says_what_it_measured_and_where_the_figure_is(untrained, tmp_path, capsys):
    command.main(["demo", "--out", str(tmp_path / "x.jpg")])
    said = capsys.readouterr().out
    assert "mean over 12 photographs" in said and str(tmp_path / "x.jpg") in said
    assert (tmp_path / "x.jpg").exists()
    with pytest.raises(SystemExit, match="Format 'xyz' is not supported"):
        command.main(["demo", "--out", str(tmp_path / "x.xyz")])
    with pytest.raises(SystemExit, match="2"):
        command.main([])


def test_without_the_packages_of_the_book_it_says_what_to_install(monkeypatch):
    monkeypatch.delattr(sagelib, "demo")
    monkeypatch.setitem(sys.modules, "sagelib.demo", None)
    with pytest.raises(SystemExit, match=r"pip install 'sagelib\[book\]'"):
        command.main(["demo"])
