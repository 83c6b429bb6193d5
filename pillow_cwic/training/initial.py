"""Where a model of integer codes starts: as a transform codec.

Encoder and decoder each have a linear block transform beside the trunk. It is begun with the
principal components of the pictures' own 16x16 blocks, the trunk silent; training improves on that
instead of having to find it first. Invariant: the weights depend on nothing but the crops. This
module takes no training step.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..entropy.logistic import FIRST_LOG_SCALE, LAST_LOG_SCALE, OUTPUT_BITS, SCALES
from ..format.grid import GRID
from ..networks.torch_layers import FIRST_GAIN, gain_slope, unshuffled
from .code_network import StepNetwork
from .joint_codec import JointCodec

OUTPUTS_PER_LOG = (SCALES - 1) / (LAST_LOG_SCALE - FIRST_LOG_SCALE) / (1 << OUTPUT_BITS)
"""By how much a scale output grows where the scale grows e-fold."""

POSITIONS = 20_000
"""Blocks from which the components are estimated, at least."""

CENTRE = 1.5
"""What the hidden unit that carries the quality holds at the middle one.

At the lowest and the highest it must stay within [0, 4).
"""


def blocks_of(pictures: Tensor) -> Tensor:
    """[B,3,H,W] -> its 16x16 blocks as rows, [B*H/16*W/16,768]."""
    return unshuffled(pictures, GRID).permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def start(joint: JointCodec, draw: Callable[[], Tensor]) -> str:
    """Set up an untrained codec from crops [B,3,s,s] in [0,1].

    Says what it did, for the records.
    """
    # The principal components of enough blocks, the strongest first.
    config = joint.config
    n = config.channels
    values = _collect_blocks(draw).double()  # [positions,3*GRID^2]
    mean = values.mean(0)
    centred = values - mean
    variance, components = torch.linalg.eigh(centred.t() @ centred / len(centred))
    variance = variance.flip(0)[:n].clamp(min=1e-6)
    components = components.flip(1)[:, :n]  # [3*GRID^2,n]

    # At high rates a step of d (in 8-bit values) makes an error of d^2 / 12, and one more bit per
    # code quarters that: lambda weighs one against the other at d = sqrt(36 / (2 ln 2 lambda)).
    middle = math.sqrt(config.lambda_min * config.lambda_max)
    step_size = math.sqrt(36 / (2 * math.log(2) * middle)) / 127.5  # of pixels in [-1, 1]
    unit = FIRST_GAIN * step_size  # of a code before its gain

    # There and back through the components; all that stands beside them is silent.
    encoder = joint.encoder
    decoder = joint.decoder
    encoder.convolution("shortcut").weight.copy_((components.t() / unit)[:, :, None, None])
    encoder.convolution("shortcut").bias.copy_(-(mean @ components) / unit)  # type: ignore[union-attr]
    decoder.convolution("shortcut").weight.copy_((components * unit)[:, :, None, None])
    decoder.convolution("shortcut").bias.copy_(mean)  # type: ignore[union-attr]
    silent = (
        encoder.convolution("codes"),
        decoder.convolution("out"),
        decoder.convolution("shortcut_eighth"),
    )
    for layer in silent:
        layer.weight.zero_()
        layer.bias.zero_()  # type: ignore[union-attr]

    # Each channel's distribution is as wide as its codes are.
    spread = (centred @ components).abs().mean(0) / unit * FIRST_GAIN  # [n], at the middle quality
    for step in joint.planes.step:
        log_s = (spread / (2 * math.log(2))).log().float()
        _start_step(step, log_s, gain_slope(config))  # type: ignore[arg-type]
    share = float(variance.sum() / centred.square().sum(1).mean())
    return (
        f"linear transforms from {len(values)} blocks' principal components: {n} hold {share:.2%} "
        "of the variance"
    )


def _collect_blocks(draw: Callable[[], Tensor]) -> Tensor:
    """At least POSITIONS blocks of pixels in [-1, 1], as rows."""
    blocks: list[Tensor] = []
    while sum(map(len, blocks)) < POSITIONS:
        blocks.append(blocks_of(draw() * 2 - 1))
    return torch.cat(blocks)


def _start_step(network: StepNetwork, log_s: Tensor, growth: float) -> None:
    """Every channel's own distribution, whatever is known of other codes.

    Its mean is 0, the log of its scale is `log_s` [n] at the middle quality and `growth` more at
    the highest. Hidden unit 0 carries the quality through all layers, because scales grow
    with the gain.
    """
    # Hidden unit 0 begins with the quality and nothing else ...
    n = len(log_s)
    qualities = len(network.quality.weight)
    network.quality.weight[:, 0] = torch.linspace(-1, 1, qualities) + CENTRE
    pairs = network.layers()
    for layer in (network.known, network.map_out, *(layer for pair in pairs for layer in pair)):
        layer.weight[0] = 0
        if layer.bias is not None:
            layer.bias[0] = 0

    # ... and goes through all layers as it is.
    for depth, mid in pairs:
        depth.weight[0, 0, 1, 1] = 1
        mid.weight[0, 0] = 1

    # Scales come from it alone, means are 0.
    middle = (log_s - FIRST_LOG_SCALE) * OUTPUTS_PER_LOG - SCALES / 2 / (1 << OUTPUT_BITS)
    slope = growth * OUTPUTS_PER_LOG
    network.out.weight.zero_()
    network.out.weight[n:, 0, 0, 0] = slope  # of the scales
    network.out.bias.zero_()  # type: ignore[union-attr]
    network.out.bias[n:] = middle - slope * CENTRE  # type: ignore[index]
