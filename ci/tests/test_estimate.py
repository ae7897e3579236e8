"""Estimated hours: work counted against sums by hand and PyTorch's counter, paces against made
steps, hours against the book's records."""
import shutil
import statistics

import pytest
import torch
from networks import Attentive
from steps import train_step
from torch import nn

from sagelib import catalog, datasets, methods, models
from sagelib.bench import records, sweep, timing
from sagelib.bench.plans import RunSpec, defaults
from sagelib.bench.sweep import estimate
from sagelib.bench.sweep.progress import SweepProgress
from sagelib.losses import one_hot


def cell(notebook="train", **given):
    usual = dict(dataset="cifar10", model="preactresnet18", method="vanilla", seed=0)
    return RunSpec(notebook, usual | given)


def test_work_is_what_layers_with_weights_compute_and_write():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
                        nn.Conv2d(4, 6, 1, groups=2), nn.Flatten(), nn.Linear(6 * 6 * 5, 7)).train()
    # a filter of the second sees 4 / 2 channels
    operations = 2 * (4 * 6 * 5 * 3 * 9 + 6 * 6 * 5 * 2 + 7 * 6 * 6 * 5)
    found = estimate.count(net, torch.zeros(2, 3, 8, 7))
    assert found == (operations, 4 * 6 * 5 * 2 + 6 * 6 * 5 + 7)
    assert net.training and not any(m._forward_hooks for m in net.modules())
    assert not net[1].num_batches_tracked


def test_work_of_preactresnet18_is_the_sum_over_its_convolutions():
    multiplications, width = 3 * 64 * 9 * 32**2, 64
    for side, out in ((32, 64), (16, 128), (8, 256), (4, 512)):
        shortcut = width * out * side**2 if width < out else 0
        multiplications += (width * out + 3 * out * out) * 9 * side**2 + shortcut
        width = out
    state = torch.get_rng_state()
    estimate.forward_work.cache_clear()
    assert estimate.forward_work("preactresnet18")[0] == 2 * (multiplications + 512 * 10)
    # a sweep that is estimated draws as one that is not
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", catalog.names(models))
def test_work_is_what_pytorchs_counter_finds(name):
    width = 8 if "width" in catalog.defaults(models, name) else 0
    net = catalog.load(models, name, classes=10, **({"width": width} if width else {})).eval()
    counted = timing.operations(lambda: net(torch.zeros(1, 3, 40, 32)))
    assert (estimate.forward_work(name, width, 40, 32)[0], 0) == counted


OPTIONS = [*((name, {}) for name in catalog.names(methods)), ("sage", {"reuse": 0}),
           ("comixup", {"clean": 0}), ("guidedmixup", {"source": "gradient"})]


@pytest.mark.parametrize("name, options", OPTIONS, ids=[name + "".join(o) for name, o in OPTIONS])
def test_units_are_what_a_step_asks_of_the_network(name, options):
    """Operations of a step over those of a forward pass; the first layer, which needs less, is
    small."""
    torch.manual_seed(0)
    net = Attentive(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 16, 3, padding=1),
                    nn.Conv2d(16, 16, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                    nn.Linear(16, 4))
    net.stages = (net[1], net[2])
    x, y = torch.randn(4, 3, 16, 16), one_hot(torch.arange(4), 4)
    method = catalog.load(methods, name, **options).seed(0)
    train_step(method, net, x, y)  # sage_merged has nothing mixed before
    step = sum(timing.operations(lambda: train_step(method, net, x, y)))
    forward, _ = timing.operations(lambda: net(x))
    units = step / forward
    assert abs(units - method.units()) < 0.1, f"units() of {name} should say {units:.1f}"


def test_paces_follow_from_two_networks_and_one_gives_the_first():
    true = estimate.Machine("m", "s", 2e-12, 3e-9)
    work = {"wide": (1e9, 1e6), "narrow": (1e7, 1e5), "grouped": (1e9, 9e6)}
    steps = [(w, 3 * (w[0] * 2e-12 + w[1] * 3e-9)) for w in work.values()]
    for some in (steps[::2], steps):
        found = estimate.machine("m", "s", some)
        assert (found.per_operation, found.per_number) == pytest.approx((2e-12, 3e-9))
    one = estimate.machine("m", "s", steps[:1])
    assert one.per_number == 0 and 3 * one.unit_seconds(work["wide"]) == pytest.approx(steps[0][1])
    assert str(one) == "m: 0.2·10¹² operations a second, from s, where one network was timed"
    assert str(true) == "m: 0.5·10¹² operations and 0.333·10⁹ numbers a second, from s"
    # more work in less time
    strange = estimate.machine("m", "s", [(work["wide"], 9.0), (work["grouped"], 1.0)])
    assert strange.per_number == 0 and strange.per_operation > 0


@pytest.fixture
def on(monkeypatch):
    """A machine that takes 0.005 and 0.01 seconds for an image and unit of two made networks."""
    monkeypatch.setattr(estimate, "forward_work", lambda *asked: {
        ("preactresnet18", 16, 32, 32): (4e9, 1e6), ("resnet12", 0, 84, 84): (8e9, 2e6),
        ("preactresnet18", 8, 32, 32): (1e9, 0)}[asked])
    return estimate.Machine("m", "s", 1e-12, 1e-9)


@pytest.mark.parametrize("method, options, units", [
    ("vanilla", {}, 3), ("sage", {}, 6), ("sage", {"reuse": 0}, 5), ("puzzlemix", {}, 5),
    ("vanilla", {"alpha": 1}, 3)])
def test_hours_of_a_method_by_hand(method, options, units, on):
    run = cell(method=method, options=options, epochs=30, width=16, train_images=10_000)
    assert estimate.hours(run, on) == pytest.approx(30 * (units + 1) * 10_000 * 0.005 / 3600)


def test_hours_of_a_run_by_hand(on):
    laptop = dict(epochs=30, width=16, train_images=10_000)
    trained = estimate.seconds(cell(**laptop), on, held_out=False)
    assert trained == pytest.approx(30 * 3 * 10_000 * 0.005)
    seldom = estimate.seconds(cell(**laptop, test_every=20), on)  # after epochs 20 and 30
    assert seldom == pytest.approx((30 * 3 + 2) * 10_000 * 0.005)
    three = estimate.seconds(cell(**laptop, more_seeds=[1, 2]), on)
    assert three == pytest.approx(3 * 30 * 40_000 * 0.005)
    # 100 epochs of 64 classes, 16 held out
    images = cell("few_shot", dataset="mini_imagenet", model="resnet12")
    assert estimate.hours(images, on) == pytest.approx(100 * (3 * 64 + 16) * 600 * 0.01 / 3600)
    shapes = estimate.seconds(cell(dataset="shapes"), on)
    assert shapes == pytest.approx(2 * (3 * 1000 + 1000) * 0.001)
    usual = estimate.seconds(cell(**laptop), on)
    assert estimate.seconds(cell(dataset="folder", **laptop), on) == usual
    benchmark = RunSpec("step_time", dict(model="preactresnet18", seed=0))
    assert estimate.hours(benchmark, on) == estimate.BENCHMARK


def test_networks_and_images_of_other_sizes_are_not_taken_for_cifar_with_preactresnet18():
    usual, wide = estimate.hours(cell()), estimate.hours(cell(model="wrn16_8"))
    # Table 6, with tests; 3.6 times the operations
    assert 3.35 < usual < 1.1 * 3.35 and 2.5 < wide / usual < 4
    small, large = (estimate.hours(cell("few_shot", dataset=name, model="resnet12"))
                    for name in ("cifar_fs", "mini_imagenet"))
    assert large / small == pytest.approx((84 / 32) ** 2, rel=0.2)
    resnext = estimate.hours(cell(dataset="cifar100", model="resnext29_4_24"))
    assert resnext == pytest.approx(9.76, rel=0.1)
    assert 1 / estimate.t4().per_operation < 8.1e12  # the peak in its data sheet


@pytest.mark.parametrize("name", ["shapes", "shapes_fs", "photographs"])
def test_data_sets_state_their_images(name):
    train, held_out, *_ = catalog.load(datasets, name)
    size = dict(zip(("height", "width"), train.images.shape[2:], strict=True))
    stated = dict(train=len(train), held_out=len(held_out), **size)
    assert catalog.stated(datasets, name, "IMAGES") == stated


def test_machines_come_from_the_newest_steps_of_each_network(tmp_path):
    paces = 1e-11, 2e-9
    for day, (model, width, precision) in enumerate(
        (("preactresnet18", 8, "fp32"), ("preactresnet18", 16, "fp32"),
         ("resnext29_4_24", 24, "fp32"), ("resnext29_4_24", 24, "bf16"))):
        work = estimate.forward_work(model, width)
        seconds = (20 * 3 * sum(n * pace for n, pace in zip(work, paces, strict=True))
                   if day in (1, 2) else 9.0)
        row = {"name": "vanilla", "seconds": timing.spread([seconds]),
               "ratio": timing.spread([0.5])}
        parameters = dict(model=model, width=width, batch=20, threads=1, precision=precision,
                          network={"name": model, "width": width})
        record = records.make_timing(what="step_time", rows=[row], parameters=parameters)
        records.write({**record, "finished": f"2026-01-0{1 + day}T00:00:00+00:00"}, tmp_path)
    shutil.copy(records.MEASURED / "h200_steps.csv", tmp_path)
    t4, in_bf16, gpu, cpu = estimate.machines(tmp_path, tmp_path)
    assert in_bf16.name == "NVIDIA H200, bf16, compiled"
    network = estimate.forward_work("preactresnet18")
    assert 3 * in_bf16.unit_seconds(network) == pytest.approx(2.215e-5)
    assert t4 is estimate.t4() and gpu.name == "NVIDIA H200, fp32 (TF32 convolutions)"
    assert 3 * gpu.unit_seconds(estimate.forward_work("preactresnet18")) == pytest.approx(5.617e-5)
    assert cpu.name.startswith("1 core of ") and cpu.source.count("step_time-") == 2
    assert (cpu.per_operation, cpu.per_number) == pytest.approx(paces)
    assert estimate.machines(tmp_path / "none", tmp_path / "none") == [t4]


def test_the_estimate_is_within_a_factor_of_two_of_what_the_books_runs_took():
    """Runs of one thread on the CPU whose steps were timed; later records may come from other
    machines."""
    core = next(m for m in estimate.machines() if m.name == "1 core of AMD EPYC")
    ratios = []
    for notebook, kind in (("train", "record"), ("few_shot", "few_shot")):
        for record in records.every(records.RESULTS, kind):
            alone = record["hardware"]["threads"] == 1 == record["seconds"].get("together", 1)
            earlier = record["finished"] < "2026-11-28"
            if alone and earlier and record["hardware"]["cpu"] == "AMD EPYC":
                given = {k: v for k, v in record["parameters"].items() if k in defaults(notebook)}
                expected = estimate.seconds(RunSpec(notebook, given), core, held_out=False)
                ratios.append(expected / record["seconds"]["training"])
    assert len(ratios) >= 25 and min(ratios) > 0.5 and max(ratios) < 2
    assert 0.8 < statistics.median(ratios) < 1.25


def test_a_dry_run_names_machines_and_what_the_hours_rest_on(capsys, plan, tmp_path):
    assert sweep.show(plan(), "small", tmp_path, (), tmp_path / "out") == 0
    first, machines, *rows, total, basis = capsys.readouterr().out.splitlines()
    assert first.endswith("size small: 4 of 4 cells are to run") and len(rows) == 4
    assert machines.startswith("hours on a Tesla T4 | ") and "core" in machines
    assert total.endswith("  in all")
    assert "the vanilla runs of the paper's Table 6" in basis and "step_time-" in basis
    assert "Solvers" in basis
    for k, column in enumerate(zip(*(row.split()[:3] for row in rows), strict=True)):
        assert float(total.split()[k]) == pytest.approx(sum(map(float, column)), abs=0.03)


def test_a_dry_run_with_nothing_to_run_says_so_in_a_line(capsys, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "remaining", lambda *asked: [])
    assert sweep.show(plan(), "small", tmp_path, (), tmp_path / "out") == 0
    assert capsys.readouterr().out.endswith("size small: 0 of 4 cells are to run\n")


def test_a_network_that_cannot_be_counted_stops_no_sweep(monkeypatch):
    monkeypatch.setattr(estimate, "forward_work", lambda *asked: 1 / 0)
    cells = [cell(seed=seed) for seed in (0, 1)]
    view = SweepProgress(cells, lambda line: None)
    view.started(cells[0])
    view.done(cells[0])
    assert view.left() == ", 0 min left"
