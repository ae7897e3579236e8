"""The loop: the recipe, one epoch by hand, and runs that are killed, spoilt or cut off."""
import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import oracles
import pytest
import torch
from steps import pytorch_loop, train_step
from torch.testing import assert_close

from sagelib import Mixup, methods
from sagelib.catalog import load, names
from sagelib.data.batches import Batches
from sagelib.evaluate import fewshot, robustness, scores
from sagelib.train import Recipe, Run, fit, fit_together
from sagelib.train.cuda_graph import WARM, CudaGraphStep


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def run(shapes, tiny, name="sage", checkpoint=None, epochs=4, on_epoch=None, **recipe):
    net = tiny()
    curve = fit(net, Batches(shapes[0], 16, generator=seeded()), load(methods, name).seed(0),
                Recipe(epochs=epochs, **recipe), Batches(shapes[1], 16), checkpoint, on_epoch)
    for entry in curve:
        entry["seconds"] = 0
    return curve, torch.cat([p.flatten() for p in net.state_dict().values()])


def test_the_default_recipe_is_the_papers():
    r = Recipe()
    assert (r.epochs, r.lr, r.momentum) == (300, 0.2, 0.9)
    assert (r.nesterov, r.weight_decay, r.decay) == (True, 1e-4, 0.1)
    rates = [r.rate(e) for e in (0, 99, 100, 199, 200, 299)]
    assert rates == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002, 0.002])
    assert [Recipe(epochs=3, lr=1).rate(e) for e in range(3)] == pytest.approx([1, 0.1, 0.01])


def cosine(low, high, share):
    """From `low` to `high` along half a cosine; share of the way in [0, 1]."""
    return high + (low - high) * (1 + math.cos(math.pi * share)) / 2


def test_schedules_follow_their_formulas():
    """Epoch by epoch and step by step; the ends of one cycle are lr/25, lr and lr/250,000."""
    steps = 7
    r, n = Recipe(epochs=10, lr=0.5, schedule="cosine"), 10 * steps
    places = [(e, k) for e in range(10) for k in range(steps)]
    assert [r.rate(e, k, steps) for e, k in places] == pytest.approx(
        [cosine(0.5, 0, (steps * e + k) / n) for e, k in places])
    r = Recipe(epochs=10, lr=0.5, schedule="one_cycle")
    top = 0.3 * n - 1  # of the climb, a step
    expected = [cosine(0.5 / 25, 0.5, i / top) if i <= top
                else cosine(0.5, 0.5 / 250_000, (i - top) / (n - 1 - top)) for i in range(n)]
    assert [r.rate(e, k, steps) for e, k in places] == pytest.approx(expected)
    assert expected[-1] == pytest.approx(2e-6)
    with pytest.raises(ValueError, match="unknown schedule 'onecycle'; known: steps, cosine, one"):
        Recipe(schedule="onecycle")


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_schedule_sets_the_rate_of_every_step(schedule, shapes, tiny):
    """Against a loop with PyTorch's optimiser; and a run that stops goes on at its place."""
    recipe, net = Recipe(epochs=2, lr=0.1, schedule=schedule), tiny()
    curve = fit(net, Batches(shapes[0], 16, generator=seeded()), load(methods, "vanilla").seed(0),
                recipe)
    other, method = tiny(), load(methods, "vanilla").seed(0)
    optimizer = torch.optim.SGD(other.parameters(), 0.1, 0.9, nesterov=True, weight_decay=1e-4)
    batches = Batches(shapes[0], 16, generator=seeded())
    pytorch_loop(other, method, batches, optimizer, recipe)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert_close(a, b)
    assert [e["lr"] for e in curve] == [recipe.rate(e, 0, len(batches)) for e in range(2)]


def test_the_test_set_waits_its_turn_and_changes_nothing(shapes, tiny):
    kept = {}
    for every in (1, 3):
        net = tiny()
        kept[every] = fit(net, Batches(shapes[0], 16, generator=seeded()),
                          load(methods, "mixup").seed(0), Recipe(epochs=5), Batches(shapes[1], 16),
                          test_every=every)
    assert [e["epoch"] for e in kept[3] if "test_accuracy" in e] == [2, 4]  # the last one always
    for often, seldom in zip(kept[1], kept[3], strict=True):
        assert seldom | {"seconds": 0} == {k: v for k, v in often.items() if k in seldom} | {
            "seconds": 0}
    with pytest.raises(ValueError, match="test_every is 0; it must be a number of epochs"):
        fit(tiny(), Batches(shapes[0], 16), load(methods, "vanilla"), test_every=0)


def test_one_epoch_by_hand(shapes, tiny):
    """SGD with Nesterov momentum and weight decay on every parameter, written out."""
    curve, weights = run(shapes, tiny, "mixup", epochs=1)
    net, method, losses = tiny(), load(methods, "mixup").seed(0), []
    speed = [torch.zeros_like(p) for p in net.parameters()]
    for x, y in Batches(shapes[0], 16, generator=seeded()):
        for p in net.parameters():
            p.grad = None
        losses.append(train_step(method, net, x, y).item())
        oracles.sgd_step(net.parameters(), speed, lr=0.2, momentum=0.9, weight_decay=1e-4)
    assert_close(torch.cat([p.flatten() for p in net.state_dict().values()]), weights, rtol=1e-4,
                 atol=1e-5)
    assert curve[0]["train_loss"] == pytest.approx(sum(losses) / len(losses))
    assert curve[0]["test_accuracy"] == pytest.approx(
        scores(net, Batches(shapes[1], 16))["accuracy"])


def test_scores_count_by_loop(shapes, tiny):
    net = tiny().train()
    found = scores(net, Batches(shapes[1], 7))
    assert net.training
    net.eval()
    right = sum(
        int(net(shapes[1].normalised()[k:k + 1]).argmax() == shapes[1].labels[k])
        for k in range(30))
    assert found["accuracy"] == pytest.approx(100 * right / 30)
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(
        net(shapes[1].normalised()), shapes[1].labels).item(), rel=1e-5)


def mixed_by(name, **options):
    method = load(methods, name, **options).seed(0)
    return lambda net, data: method.mix(*Batches(data, 7).take(torch.arange(7)), net)


USES = {  # of a network in evaluation mode
    "scores": lambda net, data: scores(net, Batches(data, 7)),
    "features": lambda net, data: fewshot.features(net, data, 7),
    "perturbations": lambda net, data: robustness.evaluate(net, data, robustness.CONVENTIONS[:1]),
    "PGD": lambda net, data: robustness.evaluate_pgd(net, data, steps=1),
    "saliency in evaluation mode": mixed_by("guidedmixup", source="gradient"),
    "Puzzle Mix": mixed_by("puzzlemix"),
    "R-Mix": mixed_by("rmix"),
    "SAGE, BatchNorm in evaluation mode": mixed_by("sage", bn="eval"),
    "epochs of training, each with a test": lambda net, data: fit(
        net, Batches(data, 16, generator=seeded()), load(methods, "mixup").seed(0),
        Recipe(epochs=2), Batches(data, 16)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("wrap", [lambda net: net, torch.compile], ids=["plain", "compiled"])
def test_a_frozen_layer_stays_frozen(use, wrap, shapes, tiny):
    """BatchNorm in evaluation mode inside a network that trains: nothing but the user's own train()
    may change it."""
    net = tiny().train()
    net[1].eval()
    modes = [m.training for m in net.modules()]
    before = {k: v.clone() for k, v in net[1].named_buffers()}
    with torch.compiler.set_stance("force_eager"):
        USES[use](wrap(net), shapes[1])
    assert [m.training for m in net.modules()] == modes == [True] * 2 + [False] + [True] * 4
    assert all(torch.equal(v, before[k]) for k, v in net[1].named_buffers())


def test_a_network_in_evaluation_mode_is_trained_and_the_mode_comes_back_after_an_error(
        shapes, tiny):
    net = tiny().eval()
    fit(net, Batches(shapes[0], 16, generator=seeded()), load(methods, "vanilla"), Recipe(epochs=1))
    assert net[1].training and net[1].num_batches_tracked == 3
    net[1].eval()
    with pytest.raises(ZeroDivisionError):
        scores(net, (1 / 0 for _ in range(1)))
    assert net.training and net[0].training and not net[1].training


@pytest.mark.parametrize("name", names(methods))
def test_interrupted_and_resumed_is_the_same_run(name, shapes, tiny, tmp_path):
    whole = run(shapes, tiny, name)

    def stop(curve):
        if len(curve) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(shapes, tiny, name, tmp_path / "c.pt", on_epoch=stop)
    resumed = run(shapes, tiny, name, tmp_path / "c.pt")
    assert resumed[0] == whole[0] and torch.equal(resumed[1], whole[1])
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


PROGRAM = """
import json, sys, torch
from sagelib import datasets, methods, models
from sagelib.data.batches import Batches
from sagelib.catalog import load
from sagelib.train import Recipe, fit
torch.set_num_threads(1)
train, test = load(datasets, "shapes", train=200, test=100)
torch.manual_seed(0)
net = load(models, "preactresnet18", classes=10, width=4)
batches = Batches(train, 50, generator=torch.Generator().manual_seed(0))
curve = fit(net, batches, load(methods, "sage").seed(0), Recipe(epochs=5), Batches(test, 100),
            sys.argv[1])
torch.save(net.state_dict(), sys.argv[1] + ".weights")
print(json.dumps([{k: v for k, v in e.items() if k != "seconds"} for e in curve]))
"""


def start(file):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(file)], text=True,
                            stdout=subprocess.PIPE)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """What the program prints when nothing stops it, and its weights."""
    file = tmp_path_factory.mktemp("whole") / "whole"
    said = json.loads(start(file).communicate()[0])
    return said, torch.load(f"{file}.weights", weights_only=True)


@pytest.mark.parametrize("delay", [0.0, 0.15], ids=["after a checkpoint", "in an epoch"])
def test_killed_with_sigkill_and_started_again_is_the_same_run(delay, whole_run, tmp_path):
    process = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "killed.weights").exists()
    assert json.loads(start(tmp_path / "killed").communicate()[0]) == whole_run[0]
    found = torch.load(tmp_path / "killed.weights", weights_only=True)
    assert all(torch.equal(found[k], v) for k, v in whole_run[1].items())


def test_a_checkpoint_holds_everything_and_loads_as_weights_only(shapes, tiny, tmp_path):
    run(shapes, tiny, checkpoint=tmp_path / "c.pt", epochs=1)
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    assert set(state) >= {"net", "optimizer", "generators", "curve", "torch"}
    assert set(state["generators"]) == {"method", "batches"}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_cut_off_checkpoint_is_one_clear_error(share, shapes, tiny, tmp_path):
    file = tmp_path / "c.pt"
    run(shapes, tiny, checkpoint=file, epochs=1)
    whole = file.read_bytes()
    file.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(ValueError, match=r"c\.pt cannot be read .* remove it to start again"):
        run(shapes, tiny, checkpoint=file)
    assert len(file.read_bytes()) == int(share * len(whole))


def test_a_checkpoint_of_another_run_is_refused(shapes, tiny, tmp_path):
    run(shapes, tiny, checkpoint=tmp_path / "c.pt", epochs=1)
    with pytest.raises(ValueError, match="belongs to another run: its recipe"):
        run(shapes, tiny, checkpoint=tmp_path / "c.pt", epochs=1, lr=0.1)
    with pytest.raises(ValueError, match="belongs to another run: its method"):
        run(shapes, tiny, "mixup", checkpoint=tmp_path / "c.pt", epochs=1)
    file = tmp_path / "controls.pt"
    for options, other in (({}, {"mixing": "box"}), ({"mixing": "box"}, {}),
                           ({"mixing": "box"}, {"mixing": "rounded"}),
                           ({}, {"gradient_of": "score"})):
        file.unlink(missing_ok=True)
        one, two = (load(methods, "sage_controls", **given).seed(0) for given in (options, other))
        batches = Batches(shapes[0], 16, generator=seeded())
        fit(tiny(), batches, one, Recipe(epochs=1), checkpoint=file)
        with pytest.raises(ValueError, match="belongs to another run: its method"):
            fit(tiny(), batches, two, Recipe(epochs=1), checkpoint=file)
    torch.save({"net": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is no checkpoint of a training run: it lacks"):
        run(shapes, tiny, checkpoint=tmp_path / "other.pt")


def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_settings(shapes, tiny, tmp_path):
    class Spoilt(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.steps = tiny(), 0

        def forward(self, x):
            self.steps += self.training
            return self.net(x) * (float("nan") if self.steps == 5 else 1)

    file = tmp_path / "c.pt"
    with pytest.raises(FloatingPointError, match=r"nan in epoch 1, step 1.*'lr': 0.2"):
        fit(Spoilt(), Batches(shapes[0], 16, generator=seeded()), load(methods, "vanilla"),
            Recipe(epochs=3), checkpoint=file)
    assert len(torch.load(file, weights_only=True)["curve"]) == 1


@pytest.mark.parametrize("options",
                         [dict(precision="bf16"), dict(precision="fp16"), dict(channels_last=True)])
def test_options_train_to_nearly_the_same(options, shapes, tiny):
    plain, other = run(shapes, tiny, "sage"), run(shapes, tiny, "sage", **options)
    assert other[0][-1]["train_loss"] == pytest.approx(plain[0][-1]["train_loss"], rel=0.05)


@pytest.mark.parametrize("name, options", [("vanilla", {}), ("sage", {}), ("sage", {"reuse": 0}),
                                           ("sage", {"per_image": True, "fraction": 1.0}),
                                           ("sage_controls", {"mixing": "box"}),
                                           ("sage_controls", {"gradient_of": "score"})])
def test_compile_trains_the_same(name, options, shapes, tiny):
    torch.compiler.reset()
    curves, states, mixed = [], [], []
    for compiled in (False, True):
        net, method = tiny(), load(methods, name, **options).seed(0)
        batches = Batches(shapes[0], 20, generator=seeded())
        recipe = Recipe(epochs=1, lr=1e-3, compile=compiled)  # rounding must not grow
        curves.append(fit(net, batches, method, recipe))
        states.append([generator.get_state() for generator in (method.generator,
                                                               batches.generator)])
        mixed.append(method.last)
        assert method.compiled is compiled and batches.compiled is False
    assert curves[1][-1]["train_loss"] == pytest.approx(curves[0][-1]["train_loss"], rel=1e-4)
    assert all(torch.equal(*pair) for pair in zip(*states, strict=True))  # the same draws
    for part in ("x", "y", "pair", "tau", "share"):
        plain, other = (getattr(each, part) for each in mixed)
        assert (plain is None) is (other is None)
        if plain is not None:
            assert_close(other, plain, rtol=1e-4, atol=1e-5)


def test_options_of_the_compiler_reach_it_and_the_record(monkeypatch, shapes, tiny):
    asked, options = [], {"combo_kernels": True}
    monkeypatch.setattr(torch, "compile", lambda net, **given: asked.append(given) or net)
    for recipe in (Recipe(compile=True), Recipe(compile=True, compile_options=options)):
        Run(tiny(), Batches(shapes[0], 16), load(methods, "vanilla"), recipe)
    assert asked == [{"options": None}, {"options": options}]
    assert Recipe(compile=True, compile_options=options).described()["compile_options"] == options
    assert "compile_options" not in Recipe(compile=True).described()
    with pytest.raises(ValueError, match="nothing is compiled: set compile, or leave them out"):
        Recipe(compile_options=options)


def test_a_compiled_batch_is_the_plain_one(shapes):
    """Bit by bit, of a crop that is mirrored, of one that is not, and of a smaller batch."""
    torch.compiler.reset()
    for flip in (True, False):
        plain, other = (Batches(shapes[0], 16, flip=flip, generator=seeded()) for _ in range(2))
        other.compiled = True
        for (x, y), (images, labels) in zip(plain, other, strict=True):
            assert torch.equal(images, x) and torch.equal(labels, y)


class Blind(Batches):
    """Batches whose labels are shuffled: there is nothing to learn but how many classes there
    are."""

    def take(self, index):
        x, y = super().take(index)
        return x, y[torch.randperm(len(y), generator=self.generator)]


def learnt(name, batches, tiny):
    """Whether 40 epochs bring the loss down by 7 %, and whether accuracy on the clean training
    images is above 25 %.

    Chance is 10 %; BatchNorm and six features reach 20 % where the labels say nothing.
    """
    net = tiny()
    curve = fit(net, batches, load(methods, name).seed(0), Recipe(epochs=40, lr=1.0))
    accuracy = scores(net, Batches(batches.dataset, 40))["accuracy"]
    return curve[-1]["train_loss"] < 0.93 * curve[0]["train_loss"], accuracy > 25


@pytest.mark.parametrize("name", names(methods))
def test_a_small_set_is_learnt(name, shapes, tiny):
    assert learnt(name, Batches(shapes[0], 16, generator=seeded()), tiny) == (True, True)


@pytest.mark.parametrize("name", ["vanilla", "sage"])
def test_shuffled_labels_are_not_learnt(name, shapes, tiny):
    assert learnt(name, Blind(shapes[0], 16, generator=seeded()), tiny) == (False, False)


def test_runs_trained_together_come_out_as_if_alone(shapes, tiny, tmp_path):
    def one(seed, name, epochs):
        return Run(tiny(), Batches(shapes[0], 16, generator=seeded(seed)),
                   load(methods, name).seed(seed), Recipe(epochs=epochs),
                   tmp_path / f"{name}{seed}.pt")

    def weights(r):
        return torch.cat([p.flatten() for p in r.net.state_dict().values()])

    kinds = [(0, "sage", 3), (1, "sage", 3), (0, "mixup", 2)]
    alone = [one(*k) for k in kinds]
    for r in alone:
        r.checkpoint = None
        fit_together([r], Batches(shapes[1], 16))
    seen = []

    def stop(curves):
        seen.append([len(c) for c in curves])
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_together([one(*k) for k in kinds[:2]], Batches(shapes[1], 16), stop)
    # two take up their checkpoints after one epoch, the third begins
    together = [one(*k) for k in kinds]
    fit_together(together, Batches(shapes[1], 16), stop)
    assert seen == [[1, 1], [1, 1, 1], [2, 2, 2], [3, 3, 2]]
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(weights(a), weights(b))
        assert [e | {"seconds": 0} for e in a.curve] == [e | {"seconds": 0} for e in b.curve]


def test_a_network_is_compiled_once_for_all_seeds(shapes, tiny):
    from torch._dynamo.utils import counters

    def one(seed):
        run = Run(tiny(), Batches(shapes[0], 15, generator=seeded(seed)),
                  load(methods, "sage").seed(seed), Recipe(epochs=1, compile=True))
        fit_together([run])
        return counters["stats"]["unique_graphs"]

    torch._dynamo.reset()
    counters.clear()
    first = one(0)
    assert first > 0 and one(1) == first


def test_an_evaluation_is_compiled_in_the_first_epoch_only(shapes, tiny):
    """Also where its last batch is smaller, and the batches of the training are of another size."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    graphs = []
    fit(tiny(), Batches(shapes[0], 20, generator=seeded()), load(methods, "sage").seed(0),
        Recipe(epochs=3, compile=True), Batches(shapes[1], 16),
        on_epoch=lambda _: graphs.append(counters["stats"]["unique_graphs"]))
    assert len(Batches(shapes[1], 16)) == 2 and len(shapes[1]) % 16
    assert graphs[0] > 2 and graphs == graphs[:1] * 3


def test_a_function_as_criterion_and_draws_of_python_go_on_from_a_checkpoint(
        shapes, tiny, tmp_path):
    """A loss that cannot be pickled, and a method whose grid Python's own generator draws."""
    def stop(curve):
        if len(curve) == 1:
            raise InterruptedError

    def train(file, on_epoch=None):
        method = load(methods, "puzzlemix",
                      criterion=lambda z, y: -(y * z.log_softmax(1)).sum(1).mean())
        curve = fit(tiny(), Batches(shapes[0], 20, generator=seeded()), method,
                    Recipe(epochs=3, lr=0.01), None, tmp_path / file, on_epoch)
        return [e["train_loss"] for e in curve]

    torch.manual_seed(0)
    random.seed(0)
    whole = train("whole.pt")
    torch.manual_seed(0)
    random.seed(0)
    with pytest.raises(InterruptedError):
        train("stopped.pt", stop)
    random.seed(99)  # another process
    assert train("stopped.pt") == whole


def test_a_checkpoint_of_a_seeded_run_is_not_taken_up_without_a_seed(shapes, tiny, tmp_path):
    run(shapes, tiny, "mixup", checkpoint=tmp_path / "c.pt", epochs=1)
    with pytest.raises(ValueError, match=r"own for \['batches', 'method'\], this run for "
                                         r"\['batches'\]: seed the same"):
        fit(tiny(), Batches(shapes[0], 16, generator=seeded()), load(methods, "mixup"),
            Recipe(epochs=1), checkpoint=tmp_path / "c.pt")


@pytest.mark.parametrize("given, message", [
    (lambda train: (train, load(methods, "mixup")), "batches is a Dataset; it must be Batches"),
    (lambda train: (Batches(train, 16), Mixup(10)),
     "method is a Mixer; it must be a method of the catalogue"),
    (lambda train: (Batches(train, 16), "sage"), "method is a str; it must be"),
], ids=["a data set", "a Mixer", "a name"])
def test_what_fit_does_not_take_is_one_clear_error(given, message, shapes, tiny):
    with pytest.raises(TypeError, match=message):
        fit(tiny(), *given(shapes[0]), Recipe(epochs=1))


def test_epochs_as_text_are_one_clear_error():
    with pytest.raises(ValueError, match="epochs is '3'; it must be a whole number"):
        Recipe(epochs="3")


@pytest.mark.parametrize("own", [True, False])
def test_a_step_that_draws_on_the_host_is_not_recorded(own, monkeypatch):
    """Its draw would be the same in every replay; the device is simulated."""
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    rng = random.Random(0) if own else None
    step = CudaGraphStep(lambda index: torch.tensor((rng or random).random()), 2, [], rng)
    with pytest.warns(UserWarning, match="draws on the host"):
        for _ in range(WARM + 1):
            step(torch.arange(2))
    assert step.graph is None and "draws on the host" in step.why
