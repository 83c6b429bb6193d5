"""The encoder CNN: pixels -> features of the codes and of the importance map (paper, section 3.1).

A residual trunk at 1/4, 1/8 and 1/16, and linear transforms of whole blocks beside it. Three
networks, one after the other: the half of the trunk that does not depend on the quality, which a
search over qualities runs once; its other half, which says where codes exist; and their features,
made of those channels alone that exist somewhere.
"""

from ..format.grid import GRID
from .config import ModelConfig
from .layers import Block, Conv, Down, Gain, Layer, Modulation, Network, Rescale, blocks


def features_network(config: ModelConfig) -> Network:
    """Pixels in [0, 1] -> the trunk at 1/16, whatever the quality."""
    c4, c8, c16 = config.encoder_channels
    n4, n8, _ = config.encoder_blocks
    layers = [
        Rescale(factor=2, offset=-1, source="pixels", target="pixels"),
        Conv(name="stem", inputs=3 * 4 * 4, outputs=c4, side=3, relu=True, unshuffle=4,
             source="pixels"),
        *blocks("quarter", n4, c4),
        Down(name="down_eighth", inputs=c4, outputs=c8),
        Conv(name="shortcut_eighth", inputs=3 * 8 * 8, outputs=c8, unshuffle=8,
             source="pixels", adds=True),
        *blocks("eighth", n8, c8),
        Down(name="down", inputs=c8, outputs=c16, target="trunk"),
    ]  # fmt: skip
    return Network(layers, {"pixels": GRID}, ("trunk",))


def heads_network(config: ModelConfig) -> Network:
    """The trunk -> what code features are made of, and the importance's logit, at 1/16."""
    c16 = config.encoder_channels[2]
    side = config.importance_channels
    layers = [
        Modulation(name="quality_in", channels=c16, source="trunk"),
        *blocks("sixteenth", config.encoder_blocks[2], c16),
        Modulation(name="quality_out", channels=c16),
        Conv(name="importance.0", inputs=c16, outputs=side, side=3, relu=True,
             target="importance"),
        Block(name="importance.2", channels=side, source="importance", target="importance"),
        Conv(name="importance.3", inputs=side, outputs=1, source="importance",
             target="importance"),
        Modulation(name="quality_importance", channels=1, source="importance",
                   target="importance"),
    ]  # fmt: skip
    return Network(layers, {"trunk": 1}, ("x", "importance"))


def codes_network(config: ModelConfig, channels: int | None = None) -> Network:
    """What the heads made, and the pixels -> features of the first `channels` codes, or of all."""
    channels = channels or config.channels
    layers: list[Layer] = [
        Rescale(factor=2, offset=-1, source="pixels", target="pixels"),
        _block_transform(channels),
        Conv(name="codes", inputs=config.encoder_channels[2], outputs=channels,
             side=config.outer_side, full_precision=True, target="codes", adds=True),
        Gain(name="gain", channels=channels, source="codes", target="codes"),
    ]  # fmt: skip
    return Network(layers, {"x": 1, "pixels": GRID}, ("codes",))


def residue_network(channels: int) -> Network:
    """What the transform of whole blocks makes of the difference of two pictures.

    It is the difference of the first `channels` code features, if the layer has no bias.
    """
    layers: list[Layer] = [
        Rescale(factor=2, offset=0, source="pixels", target="pixels"),
        _block_transform(channels),
        Gain(name="gain", channels=channels, source="codes", target="codes"),
    ]
    return Network(layers, {"pixels": GRID}, ("codes",))


def _block_transform(channels: int) -> Conv:
    return Conv(name="shortcut", inputs=3 * GRID * GRID, outputs=channels, unshuffle=GRID,
                full_precision=True, source="pixels", target="codes")  # fmt: skip
