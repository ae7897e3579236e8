"""The speed record: the time to an accuracy, and which entries the rules let in."""

import pytest
from made_records import make

from sagelib.bench import records, speed


def run(seed=0, epoch=2.0, reaches=3, final=95.5, method="sage", gpu="A GPU", day=1, **change):
    """A record of five epochs, the first slower since it compiles, that is at 95.2 % from epoch
    `reaches` on; its seconds differ a little from seed to seed."""
    seconds = epoch * (1 + 0.01 * seed)
    curve = [{"epoch": k, "seconds": seconds + (30.0 if k == 0 else 0.0),
              "test_accuracy": 95.2 if k >= reaches else 90.0} for k in range(5)]
    curve[-1]["test_accuracy"] = final
    made = {
        "kind": "shortened: epochs 5 (paper 300)", "seed": seed, "curve": curve,
        "dataset": {"name": "cifar10", "train": 50_000, "test": 10_000},
        "model": {"name": "preactresnet18", "width": 64}, "method": {"name": method},
        "recipe": {"epochs": 5, "lr": 0.2}, "final": {"accuracy": final},
        "seconds": {"together": 1}, "commit": {"id": "a" * 40, "dirty": False}, "parameters": {},
        "hardware": {"gpu": gpu, "cpu": "a processor", "threads": 2},
        "finished": f"2027-01-{day:02d}T00:00:00+00:00"}
    return {**made, **change}


def runs(seeds=3, **how):
    return [run(seed, **how) for seed in range(seeds)]


def test_the_time_is_that_of_the_epochs_up_to_the_first_evaluation_that_reaches_it():
    """Without the compilation in the first epoch: it counts as the others' median."""
    assert speed.time_to(run(), 95) == pytest.approx(4 * 2.0)
    assert speed.time_to(run(), 95.5) == pytest.approx(5 * 2.0)
    assert speed.time_to(run(reaches=0), 95) == pytest.approx(2.0)
    assert speed.time_to(run(), 96) is None
    seldom = run()
    for k in (0, 1, 3):  # not evaluated
        del seldom["curve"][k]["test_accuracy"]
    assert speed.time_to(seldom, 95) == pytest.approx(5 * 2.0)
    assert speed.time_to(run(curve=run(reaches=0)["curve"][:1]), 95) == 32.0


def test_the_first_entry_is_a_record_and_names_where_it_comes_from():
    entry, = speed.table(runs(), "sage", 95)
    assert not entry.refused and entry.p is None and entry.machine == "A GPU"
    assert entry.seconds.mean == pytest.approx(4 * 2.0 * 1.01) and entry.seconds.n == 3
    assert entry.accuracy.mean == 95.5 and entry.commit == "aaaaaaa"
    assert [r["seed"] for r in entry.records] == [0, 1, 2]
    assert entry.recipe == "preactresnet18, width 64; shortened: epochs 5 (paper 300)"
    changed, = speed.table(runs(parameters={"options": {"fraction": 1}}), "sage", 95)
    assert "; fraction 1; " in changed.recipe


def test_an_entry_that_is_faster_for_sure_supersedes_the_record():
    later = runs(epoch=1.0, day=2, recipe={"epochs": 5, "lr": 0.4})
    first, second = speed.table([*later, *runs()], "sage", 95)
    assert first.seconds.mean > second.seconds.mean and not second.refused
    assert second.p < 1e-4
    # and the next one is held against it
    third = runs(epoch=1.5, day=3, recipe={"epochs": 5, "lr": 0.8})
    entry = speed.table([*third, *later, *runs()], "sage", 95)[2]
    assert entry.refused.startswith("not faster than the record before it: p is 1")


def test_an_entry_that_may_be_faster_by_chance_is_refused():
    later = runs(epoch=1.99, day=2, recipe={"epochs": 5, "lr": 0.4})
    _, second = speed.table([*runs(), *later], "sage", 95)
    assert 0.01 < second.p < 0.5
    assert second.refused == f"not faster than the record before it: p is {second.p:.2g}"


def test_welchs_test_is_that_of_the_textbook():
    """t = (m1 - m2) / sqrt(v1/3 + v2/3) with Welch's degrees of freedom."""
    from scipy.stats import t
    a, b = ([epoch * 4 * (1 + 0.01 * k) for k in range(3)] for epoch in (1.99, 2.0))

    def mean_and_error(z):  # the mean, and its variance
        mean = sum(z) / 3
        return mean, sum((v - mean) ** 2 for v in z) / 2 / 3

    (m1, v1), (m2, v2) = mean_and_error(a), mean_and_error(b)
    freedom = (v1 + v2) ** 2 / (v1**2 / 2 + v2**2 / 2)
    expected = t.cdf((m1 - m2) / (v1 + v2) ** 0.5, freedom)
    assert speed.faster(runs(epoch=1.99), runs(), 95) == pytest.approx(expected)


def test_times_that_do_not_vary_decide_nothing():
    same = [{**run(), "seed": seed} for seed in range(3)]
    assert speed.faster(same, runs(epoch=9.0), 95) == 1.0


@pytest.mark.parametrize("found, why", [
    (runs(2), "2 of at least 3 seeds"),
    ([*runs(2), run(2, reaches=9, final=94.0)], "seed 2 never reaches 95 %"),
    (runs(final=94.9), "mean accuracy at the end: 94.90 %"),
    (runs(commit=None), "the commit is unknown, or files differed from it"),
    (runs(commit={"id": "a" * 40, "dirty": True}), "the commit is unknown, or files differed"),
    (runs(seconds={"together": 3}), "seeds were trained side by side, and share their seconds")])
def test_what_breaks_a_rule_is_refused_and_says_why(found, why):
    entry, = speed.table(found, "sage", 95)
    assert entry.refused.startswith(why)
    assert (entry.seconds is None) == ("never" in why)
    # and it is no record that the next one must beat
    _, later = speed.table([*found, *runs(epoch=3.0, day=9, recipe={"lr": 1.0})], "sage", 95)
    assert not later.refused and later.p is None


def test_machines_commits_and_methods_are_apart():
    other = runs(gpu=None, day=2)
    first, second = speed.table([*runs(), *other], "sage", 95)
    assert second.machine == "a processor, 2 threads" and not first.refused + second.refused
    newer = runs(day=2, commit={"id": "b" * 40, "dirty": False})
    assert [e.commit for e in speed.table([*runs(), *newer], "sage", 95)] == ["a" * 7, "b" * 7]
    assert speed.table(runs(), "vanilla", 95) == [] == speed.table(runs(), "sage", 96)
    small = {"name": "cifar10", "train": 50_000, "test": 1000}
    assert speed.table(runs(dataset=small), "sage", 95) == []


def test_records_of_the_papers_numbers_have_their_times(tmp_path):
    """Three epochs of 60 seconds, as made_records has them; their commit is unknown."""
    found = records.every(make("paper", tmp_path / "made"))
    entries = speed.table(found, "sage", 96)
    tuned, = [e for e in entries if not e.records[0]["parameters"].get("options")]
    assert tuned.seconds.mean == 60.0 and tuned.seconds.n == tuned.accuracy.n == 3
    assert all(e.refused for e in entries) and tuned.refused.startswith("the commit is unknown")
