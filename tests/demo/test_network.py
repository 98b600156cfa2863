import pytest
import torch
from torch import nn

from whit.demo.network import ConvBlock, IQNet, make_network
from whit.errors import ModelError


def test_it_has_about_one_point_three_million_parameters():
    assert sum(one.numel() for one in make_network().parameters()) == pytest.approx(1.3e6, rel=0.02)


def test_it_tells_one_iq_a_sheet_and_starts_near_the_mean():
    iq = make_network()(torch.rand(4, 3, 32, 32))
    assert (iq.shape, iq.dtype) == ((4, 1), torch.float32)
    assert (iq - 100).abs().max() < 15


def test_the_seed_fixes_the_weights_and_leaves_torch_alone():
    state = torch.random.get_rng_state()
    first, again, other = (make_network(seed, width=0.1) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.stem.conv.weight, other.stem.conv.weight)


def test_every_width_can_be_chosen():
    network = IQNet(stem=5, features=(6, 7), strides=(2, 1), head=(8, 9, 10)).eval()
    layers = [one for one in network.modules() if isinstance(one, nn.Conv2d)]
    assert [one.out_channels for one in layers] == [5, 6, 7, 8, 9, 10, 1]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 1)


def test_width_scales_all_hidden_channels():
    narrow = [one.out_channels for one in make_network(width=0.25).modules() if isinstance(one, nn.Conv2d)]
    assert narrow == [16, 24, 32, 64, 64, 96, 64, 32, 1]


def test_convolutions_have_a_bias_only_where_no_batch_norm_follows():
    blocks = [one for one in make_network(width=0.1).modules() if isinstance(one, ConvBlock)]
    assert len(blocks) == 5
    assert all(one.conv.bias is None for one in blocks)


@pytest.mark.parametrize(
    "widths",
    [
        {"features": (), "strides": ()},
        {"head": ()},
        {"features": (8, 8), "strides": (1,)},
    ],
)
def test_widths_that_make_no_network_are_refused(widths: dict[str, tuple[int, ...]]):
    with pytest.raises(ModelError, match="one stride for each feature width"):
        IQNet(**widths)


def test_a_width_of_nothing_is_refused():
    with pytest.raises(ModelError, match=r"make_network\(width=0\)"):
        make_network(width=0)
