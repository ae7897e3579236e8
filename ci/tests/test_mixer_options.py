"""Options of a Mixer: what there is, what is allowed, what it says of itself, and what it needs."""
import inspect

import numpy as np
import pytest
import torch
from mixers import ALL, Temperature, draw_one_batch
from torch import nn

import sagelib
from sagelib import (
    SAGE,
    CutMix,
    Method,
    Mixed,
    Mixer,
    Mixup,
    PuzzleMix,
    SaliencyMix,
    catalog,
    methods,
)
from sagelib.losses import one_hot
from sagelib.method import number
from sagelib.methods import mixup, sage, saliencymix


def test_the_signature_names_every_option():
    found = inspect.signature(SAGE).parameters
    assert found["u"].default == 0.6 and found["reuse"].default == 0.3
    assert found["loss"].default == "cross_entropy"
    assert inspect.signature(SaliencyMix).parameters["prob"].default == 0.5


def test_sagelib_offers_the_mixers_and_nothing_else():
    assert sorted(c.__name__ for c in (*ALL, Mixer, Method, Mixed)) == sorted(sagelib.__all__)
    assert "SAGE" in dir(sagelib)
    with pytest.raises(AttributeError, match="no attribute 'sage_mix'"):
        _ = sagelib.sage_mix


# how often it mixes

def test_with_prob_0_or_disabled_the_batch_stays(tiny, images):
    x, t = images
    mix = SAGE(num_classes=10, prob=0).bind(tiny())
    assert torch.equal(mix(x, t)[0], x) and mix.last is None
    mix = Mixup(num_classes=10)
    mix.enabled = False
    assert torch.equal(mix(x, t)[1], one_hot(t, 10))


@pytest.mark.parametrize("mix, low, high", [
    (Mixup(num_classes=10, prob=0.3, seed=0), 110, 190),  # 150 expected, 4 standard deviations
    (SaliencyMix(num_classes=10, seed=0), 205, 295),      # of 10 and 11
], ids=["Mixup, 0.3", "SaliencyMix, 0.5"])
def test_prob_is_the_share_of_the_batches_that_are_mixed(mix, low, high, images):
    mixed = 0
    for _ in range(500):
        mix(*images)
        mixed += mix.last is not None
    assert low < mixed < high


def test_saliencymix_draws_its_prob_once():
    assert SaliencyMix(num_classes=10, prob=1.0).prob == 1.0
    half = SaliencyMix(num_classes=10)
    assert half.prob == 0.5 and half.method.prob == 1.0  # the method does not draw again


# read and changed

def test_options_are_read_and_changed_on_the_method(tiny, images):
    mix = SAGE(10, seed=1, reuse=0.3).bind(tiny())
    assert mix.method.u == 0.6 and mix.method.reuse == 0.3
    mix.method.u = 0.0  # nothing of the image itself is left
    mix(*images)
    assert mix.last.share.max() < 0.01
    with pytest.raises(ValueError, match="u is 2"):
        mix.method.u = 2
    assert mix.method.u == 0.0
    with pytest.raises(AttributeError, match="'Mixer' object has no attribute 'u'"):
        mix.u  # noqa: B018


@pytest.mark.parametrize("name", ["eta", "u", "loss", "last", "model_"])
def test_a_mixer_refuses_what_it_does_not_have(name):
    with pytest.raises(AttributeError, match=f"a Mixer has no '{name}' that .* set on its "
                                             "`method`: .*, u, "):
        setattr(SAGE(10), name, 0.5)


@pytest.mark.parametrize("kind, name, it_has", [
    (SAGE, "eta", "criterion, u, reuse"), (SAGE, "losses", "criterion, u, reuse"),
    (PuzzleMix, "bn", ""), (Mixup, "bn", "")])
def test_a_method_refuses_an_option_that_it_does_not_have(kind, name, it_has):
    with pytest.raises(AttributeError, match=f"has no option '{name}'; it has: {it_has}"):
        setattr(kind(10).method, name, 0.5)


@pytest.mark.parametrize("name, value", [
    ("prob", 7), ("prob", "x"), ("label_smoothing", 1), ("seed", 0.5), ("seed", True),
    ("saliency", 3), ("num_classes", 0), ("num_classes", True), ("enabled", 1)])
def test_a_wrong_value_is_refused_when_it_is_set(name, value):
    mix = SAGE(10, seed=1)
    before = getattr(mix, name)
    with pytest.raises(ValueError, match=f"{name} is .*; it must be"):
        setattr(mix, name, value)
    assert getattr(mix, name) is before


@pytest.mark.parametrize("build, name, value, why", [
    (lambda: catalog.load(methods, "sage_merged"), "reuse", 0, "must be above 0"),
    (lambda: catalog.load(methods, "sage_merged"), "bn", "eval", "bn 'train'"),
    (lambda: saliencymix.SaliencyMix(published=True), "per_image", True,
     "one box for the whole batch"),
])
def test_options_that_exclude_each_other_are_refused_when_they_are_set(build, name, value, why):
    method = build()
    before = getattr(method, name)
    with pytest.raises(ValueError, match=why):
        setattr(method, name, value)
    assert getattr(method, name) == before


def test_numbers_of_numpy_become_pythons(tiny, images):
    one, two = (SAGE(10, seed=3, u=0.5).bind(tiny()),
                SAGE(10, seed=np.int64(3), u=np.float32(0.5)).bind(tiny()))
    assert torch.equal(one(*images)[0], two(*images)[0]) and type(two.seed) is int
    assert type(two.method.u) is float
    two.method.sigma = np.float64(2)
    assert type(two.method.sigma) is float


@pytest.mark.parametrize("name, message", [
    ("method", "method cannot be replaced: build another Mixer"),
    ("model", r"model cannot be replaced: call .bind\(model\)")])
def test_method_and_model_are_not_replaced(name, message):
    with pytest.raises(AttributeError, match=message):
        setattr(SAGE(10), name, sage.Sage())


def test_what_a_mixer_says_of_itself():
    mix = SAGE(10, loss=Temperature(), seed=1)
    assert "criterion=Temperature()" in repr(mix) and "cross_entropy" not in repr(mix)
    assert "10, " in repr(mix) and "u=0.6" in repr(mix) and "seed=1" in repr(mix)


# refused when it is built

@pytest.mark.parametrize("wrong, message", [
    (lambda: SAGE(num_classes=0), "num_classes is 0"),
    (lambda: Mixup(num_classes=10, prob=1.2), "prob is 1.2"),
    (lambda: CutMix(10, loss="mse"),
     "criterion is 'mse'; it must be one of 'bce', 'cross_entropy'"),
    (lambda: CutMix(num_classes=10, label_smoothing=1), "label_smoothing is 1"),
    (lambda: Mixer(mixup.Mixup(), 10, saliency=len), "Mixup looks at no saliency"),
    (lambda: setattr(Mixup(num_classes=10), "saliency", len), "Mixup looks at no saliency"),
    (lambda: Mixer("sage", 10), "method is 'sage'; give a method itself, such as catalog.load"),
    (lambda: SAGE(nn.Linear(1, 1)), "num_classes is Linear"),
    (lambda: SAGE(10, seed="a"), "seed is 'a'"),
    (lambda: SAGE(10, seed=2**63), r"it must be a whole number from 0 to 2\*\*63 - 1"),
    (lambda: SAGE(10, seed=-1), r"it must be a whole number from 0 to 2\*\*63 - 1"),
    (lambda: SAGE(10, saliency=torch.ones(6, 8, 9)), "saliency is a Tensor; it must be a function"),
    (lambda: SAGE(10, loss=nn.CrossEntropyLoss), r"give an instance: CrossEntropyLoss\(\)"),
    (lambda: SaliencyMix(num_classes=10, published=True, per_image=True),
     "one box for the whole batch"),
    (lambda: setattr(sage.Sage(), "generator", 5), r"generator is 5; it must be a torch.Generator"),
    (lambda: SAGE(10).bind(nn.Flatten(), stages=["0"]),
     "Sage mixes images alone: leave out stages="),
])
def test_wrong_options_are_one_clear_error(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("kind, name", [(SAGE, "eta"), (Mixup, "saliency")])
def test_an_unknown_argument_is_an_error(kind, name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        kind(num_classes=10, **{name: len})


# what it needs

def without_gradient(tiny):
    class Blind(nn.Conv2d):
        @torch.no_grad()
        def forward(self, z):
            return super().forward(z)
    return nn.Sequential(Blind(3, 6, 3, padding=1), *tiny(norm=False)[1:])


@pytest.mark.parametrize("form", ["__call__", "loss"])
def test_a_network_that_passes_no_gradient_to_the_images_is_one_clear_error(form, tiny, images):
    mix = SAGE(num_classes=10).bind(without_gradient(tiny))
    with pytest.raises(RuntimeError, match="passes no gradient to the images"):
        getattr(mix, form)(*images)


def test_a_network_is_a_module_and_is_bound_first(images):
    with pytest.raises(RuntimeError, match=r"Sage needs the network: call .bind\(model\) first"):
        SAGE(num_classes=10)(*images)
    with pytest.raises(TypeError, match=r"nn\.Module that is called with the images alone, not a "
                                        r"function"):
        SAGE(num_classes=10).bind(draw_one_batch)


def test_a_loss_function_gives_a_scalar(tiny, images):
    mix = SAGE(10, loss=nn.CrossEntropyLoss(reduction="none")).bind(tiny())
    with pytest.raises(ValueError, match=r"the loss function gave \(6,\)"):
        mix.loss(*images)


def test_a_method_of_ones_own_is_told_what_it_lacks():
    class Loose(Method):
        size: float = number(0.5, 0, 1)

    with pytest.raises(TypeError, match=r"Loose has options and is no dataclass: write "
                                        r"@dataclass\(kw_only=True\)"):
        Loose()
    with pytest.raises(NotImplementedError, match=r"Method has no mix\(x, y, net\)"):
        Method().mix(None, None)
    with pytest.raises(AttributeError, match="What a method keeps between steps is declared in "
                                             "its class body"):
        Mixup(10).method.count = 0
