"""Gradients through the decoder in NumPy against PyTorch's."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_model
import torch

from pillow_cwic.format.grid import Box
from pillow_cwic.networks.decoder import decoder_network
from pillow_cwic.networks.encoder import features_network
from pillow_cwic.networks.numpy_gradient import NumpyGradient
from pillow_cwic.networks.torch_network import Decoder

CONFIG = tiny_model.CONFIG
DEEP = replace(CONFIG, decoder_channels=(6, 10, 12), decoder_blocks=(4, 2, 3), outer_side=1)


@pytest.mark.parametrize("config", [CONFIG, DEEP])
@pytest.mark.parametrize("with_map", [False, True])
def test_gradients_of_a_window_are_pytorchs(config, with_map):
    """Of the pixels of a core in codes around it, on a map of odd sides, quality map or not."""
    torch.manual_seed(3)
    module = Decoder(config).requires_grad_(False)
    for parameter in module.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    random = np.random.default_rng(4)
    whole, core = Box(0, 0, 9, 7), Box(2, 1, 5, 7)
    codes = random.integers(-4, 5, (7, 9, config.channels), np.int16)
    quality = random.uniform(0, 7, (7, 9)).astype(np.float32) if with_map else 3.0
    slope = random.normal(0, 1, (16 * core.height, 16 * core.width, 3)).astype(np.float32)

    x = torch.from_numpy(codes.astype(np.float32)).permute(2, 0, 1)[None].requires_grad_()
    index = torch.as_tensor(quality)[None].float()
    expected = module(x, index, core)
    pixels = torch.from_numpy(slope).permute(2, 0, 1)[None]
    (wanted,) = torch.autograd.grad(expected, x, pixels)

    network = NumpyGradient(decoder_network(config), tensors, config.quality_count)
    picture, passed = network.run(codes, quality, whole, core)
    gradient = network.pull_back(slope, passed)
    shown = expected[0].detach().permute(1, 2, 0).numpy()
    assert np.abs(picture - shown).max() < 1e-4 * np.abs(shown).max()
    wanted = wanted[0].permute(1, 2, 0).numpy()
    assert np.abs(gradient - wanted).max() < 1e-4 * np.abs(wanted).max()

    # Of the first channels, where the others are 0.
    codes[:, :, 5:] = 0
    every = network.pull_back(slope, network.run(codes, quality, whole, core)[1])
    few = network.pull_back(slope, network.run(codes[:, :, :5], quality, whole, core)[1])
    assert few.shape == (7, 9, 5)
    assert np.abs(few - every[:, :, :5]).max() < 1e-4 * np.abs(every).max()


def test_layers_without_a_way_back_are_refused():
    """What no decoder has is named."""
    network = features_network(CONFIG)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in network.tensors.items()}
    with pytest.raises(TypeError, match="no gradient goes back through"):
        NumpyGradient(network, tensors, CONFIG.quality_count)
