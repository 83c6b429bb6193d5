"""The decoder CNN: integer codes -> pixels (paper, section 3.1).

Everything wide happens at 1/16; two narrower trunks at 1/8 and 1/4 render the pixels. A linear
transform of whole blocks stands beside them: it alone can be complete, so that
what codes say is never lost in the trunks.
"""

from ..format.grid import GRID
from .config import ModelConfig
from .layers import Conv, Gain, Modulation, Network, Rescale, blocks


def decoder_network(config: ModelConfig) -> Network:
    """Codes at 1/16 -> the picture, nominally in [0, 1]."""
    c4, c8, c16 = config.decoder_channels
    n4, n8, n16 = config.decoder_blocks
    side = config.outer_side
    layers = [
        Gain(name="gain", channels=config.channels, divides=True, source="codes", target="codes"),
        Conv(name="stem", inputs=config.channels, outputs=c16, side=side,
             sparse=side == 1, source="codes"),
        Modulation(name="quality_sixteenth", channels=c16),
        *blocks("sixteenth", n16, c16),
        Conv(name="up_eighth", inputs=c16, outputs=c8 * 4, shuffle=2),
        Modulation(name="quality_eighth", channels=c8),
        *blocks("eighth", n8, c8),
        Conv(name="up", inputs=c8, outputs=c4 * 4, shuffle=2, target="quarter"),
        *blocks("quarter", n4, c4, "quarter"),
        Conv(name="out", inputs=c4, outputs=3 * 4 * 4, side=side, shuffle=4,
             source="quarter", target="picture"),
        Conv(name="shortcut", inputs=config.channels, outputs=3 * GRID * GRID, shuffle=GRID,
             full_precision=True, sparse=True, source="codes", target="picture", adds=True),
        Conv(name="shortcut_eighth", inputs=c8, outputs=3 * 8 * 8, shuffle=8,
             target="picture", adds=True),
        Rescale(factor=0.5, offset=0.5, source="picture", target="picture"),
    ]  # fmt: skip
    return Network(layers, {"codes": 1}, ("picture",))
