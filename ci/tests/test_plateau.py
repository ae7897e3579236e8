"""Adam, and the learning rate that falls on a plateau: against PyTorch's own, step by step."""
import json

import pytest
import torch
from steps import pytorch_loop
from torch.testing import assert_close

from sagelib import methods
from sagelib.bench import records
from sagelib.catalog import load
from sagelib.data.batches import Batches
from sagelib.train import Recipe, Run, fit, fit_together

# with patience 1 the rate falls after the third, the sixth, the ninth and the last
LOSSES = [1.0, 1.1, 1.0, 0.7, 0.7, 0.8, 0.6, float("nan"), 0.9, 0.5, 0.9, 0.8]
REFERENCE = dict(optimizer="adam", lr=1e-2, weight_decay=5e-4, schedule="plateau", patience=1,
                 rewind=True)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_an_epoch_of_adam_is_the_one_of_pytorchs_loop(name, shapes, tiny):
    """Weight decay is in Adam's gradient and in AdamW's update: all weights differ."""
    recipe = Recipe(epochs=2, optimizer=name, lr=0.01, weight_decay=0.3, schedule="cosine")
    net = tiny()
    fit(net, Batches(shapes[0], 16, generator=seeded()), load(methods, "mixup").seed(0), recipe)
    found = []
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        other, method = tiny(), load(methods, "mixup").seed(0)
        optimizer = kind(other.parameters(), 0.01, weight_decay=0.3)
        batches = Batches(shapes[0], 16, generator=seeded())
        pytorch_loop(other, method, batches, optimizer, recipe)
        found.append([*other.parameters()])
    for ours, same, other in zip(net.parameters(), *found[::1 if name == "adam" else -1],
                                 strict=True):
        assert_close(ours, same, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(ours, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_the_plateau_is_pytorchs_scheduler(patience):
    recipe = Recipe(lr=0.5, schedule="plateau", decay=0.3, patience=patience)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, threshold=0,
                                                           patience=patience)
    rates = []
    for epoch, loss in enumerate(LOSSES):
        rates.append(optimizer.param_groups[0]["lr"])
        assert recipe.rate(epoch, losses=LOSSES) == rates[-1]
        scheduler.step(loss)
    assert len(set(rates)) == {0: 8, 1: 4, 2: 1}[patience]


def test_with_rewind_the_rate_is_that_of_the_best_epoch_times_the_decay():
    """The second fall in a row gives the same rate again: the best epoch is still the first."""
    recipe = Recipe(lr=1.0, schedule="plateau", patience=0, rewind=True, last_lr=0.01)
    losses = [1.0, 2.0, 2.0, 0.5, 0.6, 0.4]
    rates = [recipe.rate(k, losses=losses) for k in range(len(losses) + 1)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    assert [recipe.plateau(losses[:k])[1] for k in range(7)] == [
        False, False, True, True, False, True, False]
    assert [recipe.ended(losses[:k]) for k in range(7)] == [False] * 5 + [True] * 2
    assert not Recipe(lr=1.0, schedule="plateau", patience=0).ended(losses)


@pytest.mark.parametrize("given, message", [
    (dict(optimizer="adam_w"), "unknown optimizer 'adam_w'; known: sgd, adam, adamw"),
    (dict(patience=1.5), "patience must be a whole number of epochs"),
    (dict(last_lr=1), r"last_lr a share of lr in \[0, 1\); they are 10 and 1"),
    (dict(schedule="plateau", decay=1), "with the schedule plateau it must be between 0 and 1"),
    (dict(schedule="plateau", monitor="test_accuracy"), "the plateau follows a loss")])
def test_what_a_recipe_does_not_take_is_one_clear_error(given, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**given)


def test_a_record_names_adam_and_plateau_where_they_are_used_and_only_there():
    usual = Recipe().described()
    assert list(usual) == ["epochs", "lr", "momentum", "nesterov", "weight_decay", "milestones",
                           "decay", "precision", "channels_last", "compile"]
    assert Recipe(patience=3, monitor="train_loss", last_lr=0.5).described() == usual
    assert Recipe(**REFERENCE).described() == dict(
        epochs=300, optimizer="adam", lr=1e-2, weight_decay=5e-4, schedule="plateau", decay=0.1,
        patience=1, monitor="val_loss", rewind=True, last_lr=0.0, precision="fp32",
        channels_last=False, compile=False)


@pytest.mark.parametrize("kind", ["record", "few_shot"])
def test_the_recipes_of_the_books_records_still_give_their_run_ids(kind):
    """The recipe is described anew from its own values, not copied."""
    fields = Recipe.__dataclass_fields__.keys()
    seen = 0
    for record in records.every(records.RESULTS, kind):
        had = record["recipe"]
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in had.items() if k in fields}
        rest = {k: v for k, v in had.items() if k not in fields}
        recipe = {**Recipe(**values).described(), **rest}
        asked = {k: record[k] for k in ("dataset", "model", "method", "seed")}
        exam = {"exam": record["chosen"]["exam"]} if "exam" in record.get("chosen", {}) else {}
        # older records lack options that their method has got since
        if json.dumps(recipe, sort_keys=True) == json.dumps(had, sort_keys=True):
            seen += records.run_id(**asked, recipe=had, **exam) == record["run"]
        assert recipe == had
    assert seen >= 1


# runs

def started(shapes, tiny, file=None, epochs=12, **changed):
    return Run(tiny(), Batches(shapes[0], 16, generator=seeded()), load(methods, "sage").seed(0),
               Recipe(**{**REFERENCE, "epochs": epochs, **changed}), file, select="val_loss")


def told(log, stop_at=99):
    """A validation with the made losses, which notes the weights that it sees."""
    def validate(net):
        if len(log) == stop_at:
            raise KeyboardInterrupt
        log.append({k: v.clone() for k, v in net.state_dict().items()})
        return {"val_loss": LOSSES[len(log) - 1]}
    return validate


def same(one, other):
    return all(torch.equal(v, other[k]) for k, v in one.items())


def numbers(curve):
    return [{k: v for k, v in entry.items() if k not in ("seconds", "val_loss")} for entry in curve]


def test_the_network_of_the_lowest_loss_is_kept_and_the_first_of_equals(shapes, tiny):
    log, run = [], started(shapes, tiny)
    fit_together([run], told(log))
    assert same(run.best, log[9])
    log, run = [], started(shapes, tiny, epochs=5)
    fit_together([run], told(log))
    assert same(run.best, log[3])


@pytest.mark.parametrize("rewind", [True, False])
def test_after_a_fall_training_goes_on_from_the_best_epoch(rewind, shapes, tiny):
    """The third epoch's loss is the first that is one too many; the best was the first epoch's."""
    log, run = [], started(shapes, tiny, epochs=3, rewind=rewind)
    moments = []

    def noted(net):
        moments.append([s["exp_avg_sq"].clone() for s in run.optimizer.state.values()])
        return told_so(net)

    told_so = told(log)
    fit_together([run], noted)
    now = [s["exp_avg_sq"] for s in run.optimizer.state.values()]
    k = 0 if rewind else 2
    assert same(run.net.state_dict(), log[k]) and not same(run.net.state_dict(), log[2 - k])
    assert all(torch.equal(*pair) for pair in zip(now, moments[k], strict=True))
    steps = {int(s["step"]) for s in run.optimizer.state.values()}
    assert steps == {len(run.batches) * (k + 1)}
    assert run.recipe.rate(3, losses=LOSSES) == pytest.approx(1e-3)


@pytest.mark.parametrize("stop_at", [2, 3, 6])
def test_a_run_that_stops_on_a_plateau_goes_on_to_the_same_curve(stop_at, shapes, tiny, tmp_path):
    """In the middle of a plateau, right after a rewind, and between two falls."""
    log, whole = [], started(shapes, tiny, tmp_path / "whole.pt")
    fit_together([whole], told(log))
    again, broken = [], started(shapes, tiny, tmp_path / "broken.pt")
    with pytest.raises(KeyboardInterrupt):
        fit_together([broken], told(again, stop_at))
    resumed = started(shapes, tiny, tmp_path / "broken.pt")
    fit_together([resumed], told(again))
    assert numbers(resumed.curve) == numbers(whole.curve)
    assert len({entry["lr"] for entry in whole.curve}) == 4
    assert same(resumed.net.state_dict(), whole.net.state_dict()) and same(resumed.best, whole.best)


def test_training_ends_when_the_rate_has_come_down(shapes, tiny, tmp_path):
    log, run = [], started(shapes, tiny, tmp_path / "c.pt", last_lr=0.01)
    curve, = fit_together([run], told(log))
    assert len(curve) == 6 and run.ended and same(run.best, log[3])
    again = started(shapes, tiny, tmp_path / "c.pt", last_lr=0.01)
    fit_together([again], told(log))
    assert len(log) == 6 and again.curve == curve


def test_a_plateau_without_its_loss_is_one_clear_error(shapes, tiny):
    run = started(shapes, tiny)
    run.select = None
    with pytest.raises(ValueError, match="the learning rate follows 'val_loss', which is not in "
                                         "the curve: epoch, lr, train_loss, seconds; the test is"):
        fit_together([run])


def test_a_plateau_asks_for_the_loss_of_every_epoch_before_it_trains(shapes, tiny):
    net, batches = tiny(), Batches(shapes[0], 16)
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(ValueError, match="test_every is 2; with the schedule plateau it must be 1"):
        fit(net, batches, load(methods, "vanilla"), Recipe(schedule="plateau"), test_every=2)
    assert all(map(torch.equal, before, net.parameters()))
