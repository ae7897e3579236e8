"""The methods in loops that are less common: each found where it went wrong, silently or with a
message of no help."""
import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mixers import LOOK
from torch import nn
from torch.testing import assert_close

from sagelib import SAGE, ManifoldMixup, Method, Mixer, Mixup, PuzzleMix, SaliencyMix
from sagelib.losses import one_hot
from sagelib.method import number
from sagelib.methods import puzzlemix, sage
from sagelib.saliency import saliency

looking = pytest.mark.parametrize("kind", LOOK, ids=lambda c: c.__name__)


class Around(nn.Module):
    """A network with something before it."""

    def __init__(self, net, first):
        super().__init__()
        self.net, self.first = net, first

    def forward(self, z):
        return self.net(self.first(z))


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, k):
        return torch.full((3, 8, 8), float(k)), k % 10


@pytest.mark.parametrize("before", ["fresh", "used", "restored"])
def test_each_worker_draws_for_itself_in_each_epoch(before):
    mix = Mixup(10, seed=0)
    if before == "used":
        mix(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.long))
    elif before == "restored":
        mix.load_state_dict(copy.deepcopy(_used(Mixup(10, seed=0))))
    loader = torch.utils.data.DataLoader(Pairs(), 3, num_workers=2,
                                         collate_fn=functools.partial(_share, mix))
    shares = [share for _ in range(2) for share in loader]
    assert len(shares) == len(set(shares)) == 8


def _used(mix):
    mix(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.long))
    return mix.state_dict()


def _share(mix, rows):
    mix(*torch.utils.data.default_collate(rows))
    return mix.last.share[0].item()


@looking
def test_a_network_that_chooses_float16_by_itself(kind, tiny):
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny(norm=False)
            with torch.no_grad():
                self.net[0].weight *= 0.01

        def forward(self, z):
            with torch.autocast("cpu", torch.float16, enabled=self.training):
                return self.net(z)

    x, t = torch.randn(100, 3, 32, 32), torch.randint(10, (100,))
    net = Inside().train()
    wanted = saliency(
        torch.autograd.grad(F.cross_entropy(net.net(z := x.clone().requires_grad_()), t), z)[0])
    for look in (lambda m: m(x, t), lambda m: m.loss(x, t)):
        look(mix := kind(10, seed=0).bind(net))
        maps = mix.last.saliency
        assert (maps.amax((1, 2, 3)) > 0).all()
        together = torch.corrcoef(torch.stack([maps.flatten(), wanted.flatten()]).double())[0, 1]
        # Puzzle Mix looks in evaluation mode: here in float32
        assert together > (0.9 if kind is PuzzleMix else 0.98)


class Temperature(nn.Module):
    """A loss that learns."""

    def __init__(self):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(2.0))

    def forward(self, z, y):
        return F.cross_entropy(z * self.t, y)


@pytest.mark.parametrize("where", ["loss", "functional", "unregistered"])
def test_weights_that_are_not_among_the_networks_parameters_get_both_gradients(where, tiny, images):
    x, t = images
    net, loss = tiny(norm=False), Temperature() if where == "loss" else F.cross_entropy
    outer = nn.Conv2d(3, 3, 1)
    if where == "functional":
        weights = {k: p.detach().clone().requires_grad_() for k, p in net.named_parameters()}
        bound = Around(nn.Identity(), lambda z: torch.func.functional_call(net, weights, (z,)))
        watched = list(weights.values())
    else:
        bound = Around(net, outer.forward) if where == "unregistered" else net
        watched = [loss.t] if where == "loss" else list(outer.parameters())
    mix = SAGE(10, seed=0, reuse=0.5, loss=loss).bind(bound)
    mix.loss(x, t).backward()
    by_hand = 0.5 * loss(bound(x), one_hot(t, 10)) + 0.5 * loss(bound(mix.last.x), mix.last.y)
    for weight, wanted in zip(watched, torch.autograd.grad(by_hand, watched), strict=True):
        assert_close(weight.grad, wanted)


@looking
@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.ReLU()], ids=["in place", "copied"])
def test_a_first_layer_that_writes_on_its_input(kind, first, tiny, images):
    x, t = images
    for form in (lambda m: m(x, t)[0], lambda m: m.loss(x, t)):
        found = [
            form(kind(10, seed=0).bind(Around(tiny(norm=False), layer)))
            for layer in (first, nn.ReLU())
        ]
        assert_close(*found)
    assert torch.equal(x, torch.randn(6, 3, 14, 18, generator=torch.Generator().manual_seed(0)))


def test_a_network_that_normalises_in_place_leaves_the_batch_alone(tiny, images):
    x, t = images
    before = x.clone()

    def normalise(z):
        with torch.no_grad():
            return z.sub_(0.5).div_(0.25)
    SAGE(10, seed=0).bind(Around(tiny(norm=False), normalise))(x, t)
    assert torch.equal(x, before)


def test_maps_of_ones_own_bring_no_graph_along(tiny, images):
    other, net = tiny(), tiny()

    def maps(z):
        with torch.enable_grad():
            return other[0](z).abs().mean(1)
    mix = SAGE(10, saliency=maps).bind(net)
    x, y = mix(*images)
    F.cross_entropy(net(x), y).backward()
    assert not (x.requires_grad or y.requires_grad or mix.last.saliency.requires_grad)
    assert all(p.grad is None for p in other.parameters())


def test_a_second_derivative_is_refused(tiny, images):
    net = tiny(norm=False)
    loss = SAGE(10, seed=0).bind(net).loss(*images)
    with pytest.raises(RuntimeError, match=r"second derivative .* reuse=0"):
        torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    loss = SAGE(10, seed=0, reuse=0).bind(net).loss(*images)
    grads = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    sum(g.square().sum() for g in grads).backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_scripted_network_is_refused_where_its_batchnorm_would_move(tiny):
    with pytest.raises(ValueError, match=r"scripted network .* before torch\.jit\.script"):
        SAGE(10).bind(torch.jit.script(nn.Sequential(*tiny())))
    SAGE(10).bind(torch.jit.script(nn.Sequential(*tiny(norm=False))))


# Manifold Mixup


def test_stages_in_evaluation_mode_are_mixed_all_the_same(tiny, images):
    net = tiny().train()
    for stage in net.stages:
        stage.eval()
    mix, inside = ManifoldMixup(10, seed=0).bind(net), 0
    for _ in range(10):
        loss = mix.loss(*images)
        if torch.equal(mix.last.x, images[0]):
            inside += 1
            assert abs(loss - F.cross_entropy(tiny().train()(images[0]), mix.last.y)) > 1e-4
    assert inside >= 3
    net.eval()
    with pytest.raises(RuntimeError, match=r"network in training mode.*call net\.train\(\)"):
        for _ in range(20):
            mix.loss(*images)
    assert mix.method.pending is None


@pytest.mark.parametrize("copied", ["mix", "owner"])
def test_a_copy_of_the_method_mixes_in_its_own_network(copied, tiny, images):
    net = tiny().train()
    mix = ManifoldMixup(10, seed=0).bind(net)
    net.mix = mix
    twin = copy.deepcopy(mix if copied == "mix" else net)
    twin = twin if copied == "mix" else twin.mix
    for _ in range(10):
        assert_close(twin.loss(*images), mix.loss(*images))
        assert twin.method.pending is None and twin.model is not net
    assert twin.model[2] is twin.method.attached[0]
    twin.method.alpha = 7.0
    assert mix.method.alpha == 2.0


def test_options_of_a_copy_are_its_own(tiny):
    one = SAGE(10)
    two = copy.copy(one)
    two.method.u = 0.1
    assert one.method.u != 0.1 and two.method.u == 0.1


def test_a_stage_that_gives_a_tuple(images):
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, z):
            return self.conv(z), "more"

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = Several(), nn.Linear(4, 10)

        def forward(self, z):
            return self.head(self.block(z)[0].mean((2, 3)))

    net, (x, t) = Net().train(), images
    mix = ManifoldMixup(10, seed=1, stages=1).bind(net, stages="block")
    while torch.equal((mixed := mix(x, t))[0], x) is False:
        pass
    h, w = net.block.conv(x), mix.last.share[0]
    assert_close(net(x), net.head((w * h + (1 - w) * h[mix.last.pair]).mean((2, 3))))
    assert mixed[1].shape == (6, 10)


def test_wrong_stages_are_one_clear_error(tiny, images):
    with pytest.raises(ValueError, match="a stage must be a module of the network"):
        ManifoldMixup(10).bind(tiny(), stages=[nn.ReLU(), nn.ReLU()])
    mix = ManifoldMixup(10, seed=0).bind(tiny().train())
    mix.method.stages = 3
    with pytest.raises(ValueError, match="stages is 3, and bind was told 2"):
        mix(*images)


# what is given


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@looking
def test_lightning_fabric(kind, precision, tiny, images):
    import lightning
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=precision)
    inner = tiny(norm=False)
    net, optimizer = fabric.setup(inner, torch.optim.SGD(inner.parameters(), 0.1))
    mix, twin = kind(10, seed=0).bind(net), kind(10, seed=0).bind(tiny(norm=False))
    assert_close(mix(*images), twin(*images))
    fabric.backward(mix.loss(*images))
    twin.loss(*images).backward()
    close = {} if precision == "32-true" else {"rtol": 0.1, "atol": 0.02}
    for p, q in zip(inner.parameters(), twin.model.parameters(), strict=True):
        assert_close(p.grad, q.grad, **close)
    optimizer.step()


@pytest.mark.parametrize("dtype", [
    torch.int8, torch.uint8, torch.uint16, torch.int16, torch.int32, torch.int64
])
def test_class_numbers_of_any_whole_type(dtype, images):
    assert torch.equal(
        Mixup(10, seed=0)(images[0], images[1].to(dtype))[1],
        Mixup(10, seed=0)(*images)[1])


def test_numbers_of_numpy(tiny, images):
    one, two = (
        SAGE(10, seed=3, u=0.5).bind(tiny()),
        SAGE(10, seed=np.int64(3), u=np.float32(0.5)).bind(tiny()),
    )
    assert torch.equal(one(*images)[0], two(*images)[0]) and type(two.seed) is int
    assert type(two.method.u) is float
    two.method.sigma = np.float64(2)
    assert type(two.method.sigma) is float
    for wrong in (2**63, -1):
        with pytest.raises(ValueError, match=r"it must be a whole number from 0 to 2\*\*63 - 1"):
            SAGE(10, seed=wrong)


def test_draws_of_a_device_that_is_not_here():
    state = {**_used(Mixup(10, seed=0)), "device": "cuda:7"}
    with pytest.raises(ValueError, match="these draws were made on cuda:7, which is not here"):
        Mixup(10, seed=0).load_state_dict(state)


@pytest.mark.parametrize("kind", [PuzzleMix, SaliencyMix], ids=lambda c: c.__name__)
def test_colours_and_channels_that_do_not_fit(kind, tiny):
    options = {"prob": 1.0} if kind is SaliencyMix else {}
    mix = kind(10, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2), **options)
    if kind is PuzzleMix:
        mix.bind(Around(tiny(norm=False), nn.Conv2d(4, 3, 1)))
    with pytest.raises(ValueError, match="mean has 3 numbers, the images 4 channels"):
        mix(torch.randn(6, 4, 16, 16), torch.arange(6))


def test_what_a_mixer_says_of_itself():
    mix = SAGE(10, loss=Temperature())
    assert "criterion=Temperature()" in repr(mix) and "cross_entropy" not in repr(mix)
    assert "10, " in repr(mix)
    for kind in (PuzzleMix, Mixup):
        with pytest.raises(AttributeError, match="has no option 'bn'"):
            kind(10).method.bn = "eval"


# what a reader with fresh eyes ran into


def test_what_a_method_needs_is_said():
    with pytest.raises(AttributeError, match="What a method keeps between steps is declared in "
                                             "its class body"):
        Mixup(10).method.count = 0

    class Loose(Method):
        size: float = number(0.5, 0, 1)

    with pytest.raises(TypeError, match=r"Loose has options and is no dataclass: write "
                                        r"@dataclass\(kw_only=True\)"):
        Loose()
    with pytest.raises(NotImplementedError, match=r"Method has no mix\(x, y, net\)"):
        Method().mix(None, None)
    with pytest.raises(ValueError, match=r"generator is 5; it must be a torch.Generator"):
        sage.Sage().generator = 5


def test_labels_that_are_not_soft_are_named_and_not_the_network(tiny, images):
    for method in (sage.Sage(), puzzlemix.PuzzleMix()):
        with pytest.raises(ValueError, match=r"labels must be soft, floats of shape \(B, K\), not "
                                             r"torch.int64 \(6,\)"):
            method.loss(tiny(), *images)
        with pytest.raises(ValueError,
                           match=r"looks through the network: give it, mix\(x, y, net\)"):
            method.mix(images[0], one_hot(images[1], 10))


def test_a_mixer_keeps_the_methods_maps_and_shares_no_draws(images):
    method = sage.Sage().seed(5)
    method.saliency_fn = maps = lambda z: z.abs().mean(1)
    one, two = Mixer(method, 10), Mixer(method, 10)
    assert one.saliency is maps
    first = one(*images)[0]
    assert torch.equal(two(*images)[0], first) and not torch.equal(one(*images)[0], first)
    third = copy.copy(two)
    assert torch.equal(third(*images)[0], two(*images)[0])


def test_method_and_model_are_not_replaced(tiny):
    mix = SAGE(10).bind(tiny())
    with pytest.raises(AttributeError, match="method cannot be replaced: build another Mixer"):
        mix.method = sage.Sage()
    with pytest.raises(AttributeError, match=r"model cannot be replaced: call .bind\(model\)"):
        mix.model = tiny()
    for name in ("num_classes", "seed"):
        with pytest.raises(ValueError, match=f"{name} is True"):
            setattr(mix, name, True)
