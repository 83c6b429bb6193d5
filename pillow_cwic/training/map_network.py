"""The entropy network of the importance map in float, as it is trained (paper, section 3.4).

Each position sees exactly what a decoder knows by then: the parities here define that order, and
`entropy.map_coder` follows it in integers, which are made from these weights at export. The codes
have theirs in `code_network`. Activations are clamped to [0, 4) because the integer form has seven
bits for them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.config import ModelConfig


def clamped_relu(x: Tensor) -> Tensor:
    """ReLU with the ceiling of the integer form: [0, 4]."""
    return F.hardtanh(x, 0, 4)  # `clamp`, with one pass backward instead of four


def level_as_input(level: Tensor, levels: int) -> Tensor:
    """Levels, any shape -> network input in steps of 1/4, centred: (level - levels/2) / 4."""
    return (level - levels // 2) / 4


class MapNetwork(nn.Module):
    """Probabilities of importance levels, coarse to fine; a level is a path in a binary tree."""

    paths: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, nodes = config.map_channels, config.levels - 1
        self.levels = config.levels
        self.conv1 = nn.Conv2d(3, width, 5, padding=2)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, width, 1)
        self.out = nn.Conv2d(width, nodes, 1)
        self.quality = nn.Embedding(config.quality_count, width)
        self.stage = nn.Embedding(7, width)
        self.coarsest = nn.Embedding(config.quality_count, nodes)
        for embedding in (self.quality, self.stage, self.coarsest):
            nn.init.zeros_(embedding.weight)
        self.register_buffer("paths", tree_paths(config.levels), persistent=False)

    def log2_levels(self, logits: Tensor) -> Tensor:
        """Node logits [B,levels-1,h,w] -> log2 probability of every level [B,levels,h,w]."""
        right = torch.einsum("bnhw,nl->blhw", F.logsigmoid(logits), (self.paths > 0).float())
        left = torch.einsum("bnhw,nl->blhw", F.logsigmoid(-logits), (self.paths < 0).float())
        return (right + left) / math.log(2)

    def nodes(self, level: Tensor, known: Tensor, quality_index: Tensor, stage: int) -> Tensor:
        """level, known [B,1,h,w] -> node logits [B,levels-1,h,w]; known: 1 where seen."""
        x = torch.cat(
            [level_as_input(level, self.levels) * known, known, torch.ones_like(level)], 1
        )  # [B,3,h,w]
        shift = (self.quality(quality_index) + self.stage.weight[stage])[:, :, None, None]
        h = self.conv1(x)
        h = clamped_relu(h + shift.to(h.dtype))
        return self.out(clamped_relu(self.conv3(clamped_relu(self.conv2(h))))).float()

    def forward(self, level: Tensor, quality_index: Tensor) -> Tensor:
        """level [B,1,h,w], quality_index [B] -> log2 p of all levels, [B,levels,h,w]."""
        batch, _, height, width = level.shape
        start = self.log2_levels(self.coarsest(quality_index)[:, :, None, None].float())
        out = start.expand(batch, self.levels, height, width)
        for step, scale in enumerate((4, 2, 1)):
            grid = level[:, :, ::scale, ::scale]
            y = torch.arange(grid.shape[2], device=level.device)[:, None] % 2
            x = torch.arange(grid.shape[3], device=level.device)[None] % 2
            corners = (
                ((y == 0) & (x == 0)).to(grid.dtype)[None, None].expand_as(grid)
            )  # coded at the coarser scale
            quincunx = (y == x).to(grid.dtype)[None, None].expand_as(grid)  # corners and centres
            centre = self.log2_levels(self.nodes(grid, corners, quality_index, 2 * step))
            edge = self.log2_levels(self.nodes(grid, quincunx, quality_index, 2 * step + 1))
            here = torch.where(y != x, edge, out[:, :, ::scale, ::scale])
            here = torch.where((y == 1) & (x == 1), centre, here)
            out = out.clone()
            out[:, :, ::scale, ::scale] = here
        return out


def tree_paths(levels: int) -> Tensor:
    """+1 / -1 where the path to a level takes the 1 / 0 branch of a node, [levels-1, levels].

    0 off the path.
    """
    depth = levels.bit_length() - 1
    paths = torch.zeros(levels - 1, levels)
    for leaf in range(levels):
        node = 0
        for d in range(depth):
            bit = (leaf >> (depth - 1 - d)) & 1
            paths[node, leaf] = 1 if bit else -1
            node = 2 * node + 1 + bit
    return paths
