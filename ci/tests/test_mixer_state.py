"""A Mixer's draws: seeds, copies, checkpoints, DataLoader workers."""
import copy
import functools
import pickle

import pytest
import torch
from mixers import draw_one_batch, own_maps
from torch.testing import assert_close

from sagelib import SAGE, ManifoldMixup, Mixer, Mixup
from sagelib.methods import sage


class Rows(torch.utils.data.Dataset):
    """Twelve images (3, 8, 8) of one colour each, and their class indices."""

    def __len__(self):
        return 12

    def __getitem__(self, k):
        return torch.full((3, 8, 8), float(k)), k % 10


def share_of(mix, rows):
    """As a collate function: the share of the first image."""
    mix(*torch.utils.data.default_collate(rows))
    return mix.last.share[0].item()


def test_a_seed_determines_all_draws_and_copies_continue_alike(tiny, images):
    net = tiny()
    first = SAGE(num_classes=10, seed=5).bind(net)
    torch.manual_seed(0)
    a = [first(*images)[0] for _ in range(2)]
    twin, stored = copy.deepcopy(first), pickle.loads(pickle.dumps(first))
    torch.manual_seed(1)
    again = SAGE(num_classes=10, seed=5).bind(net)
    assert all(torch.equal(again(*images)[0], each) for each in a) and not torch.equal(*a)
    c = first(*images)[0]
    assert torch.equal(twin(*images)[0], c) and torch.equal(stored(*images)[0], c)


def test_a_seed_that_is_set_later_counts_from_then_on(tiny, images):
    net = tiny()
    mix, one = SAGE(10, seed=2).bind(net), SAGE(10, seed=1).bind(net)
    mix(*images)
    mix.seed = 1
    assert torch.equal(mix(*images)[0], one(*images)[0])
    mix.seed = None
    torch.manual_seed(3)
    drawn = mix(*images)[0]
    torch.manual_seed(3)
    assert torch.equal(SAGE(10).bind(net)(*images)[0], drawn)


def test_a_stopped_run_goes_on_with_the_same_draws(tiny, images, tmp_path):
    net = tiny()
    whole, first, second = (SAGE(10, seed=1, prob=0.5).bind(net) for _ in range(3))
    expected = [whole(*images)[0] for _ in range(8)]
    assert all(torch.equal(first(*images)[0], z) for z in expected[:4])
    torch.save(first.state_dict(), tmp_path / "mix.pt")
    second.load_state_dict(torch.load(tmp_path / "mix.pt", weights_only=True))
    assert all(torch.equal(second(*images)[0], z) for z in expected[4:])
    assert SAGE(10).state_dict() == {} and not torch.equal(expected[0], expected[4])


def test_draws_of_a_device_that_is_not_here_are_refused():
    mix = Mixup(10, seed=0)
    draw_one_batch(mix)
    with pytest.raises(ValueError, match="these draws were made on cuda:7, which is not here"):
        Mixup(10, seed=0).load_state_dict({**mix.state_dict(), "device": "cuda:7"})


def test_options_of_a_copy_are_its_own(tiny):
    one = SAGE(10)
    two = copy.copy(one)
    two.method.u = 0.1
    assert one.method.u != 0.1 and two.method.u == 0.1


def test_mixers_of_one_method_keep_its_maps_and_share_no_draws(images):
    method = sage.Sage().seed(5)
    method.saliency_fn = own_maps
    one, two = Mixer(method, 10), Mixer(method, 10)
    assert one.saliency is own_maps
    first = one(*images)[0]
    assert torch.equal(two(*images)[0], first) and not torch.equal(one(*images)[0], first)
    third = copy.copy(two)
    assert torch.equal(third(*images)[0], two(*images)[0])


@pytest.mark.parametrize("copied", ["mix", "owner"])
def test_a_copy_of_manifold_mixup_mixes_in_its_own_network(copied, tiny, images):
    net = tiny().train()
    mix = ManifoldMixup(10, seed=0).bind(net)
    net.mix = mix
    twin = copy.deepcopy(mix) if copied == "mix" else copy.deepcopy(net).mix
    for _ in range(10):
        assert_close(twin.loss(*images), mix.loss(*images))
        assert twin.method.pending is None and twin.model is not net
    assert twin.model[2] is twin.method.attached[0]
    twin.method.alpha = 7.0
    assert mix.method.alpha == 2.0


@pytest.mark.parametrize("before", ["fresh", "used", "restored"])
def test_each_worker_draws_for_itself_in_each_epoch(before):
    mix, used = Mixup(10, seed=0), Mixup(10, seed=0)
    draw_one_batch(used)
    if before == "used":
        mix = used
    elif before == "restored":
        mix.load_state_dict(copy.deepcopy(used.state_dict()))
    loader = torch.utils.data.DataLoader(Rows(), 3, num_workers=2,
                                         collate_fn=functools.partial(share_of, mix))
    shares = [share for _ in range(2) for share in loader]
    assert len(shares) == len(set(shares)) == 8


def test_a_worker_does_not_use_its_own_copy_of_the_network(tiny):
    loader = torch.utils.data.DataLoader(
        Rows(), 4, num_workers=1, collate_fn=functools.partial(share_of, SAGE(10).bind(tiny())))
    with pytest.raises(RuntimeError, match="DataLoader's worker, whose copy of the network never "
                                           "learns"):
        next(iter(loader))
