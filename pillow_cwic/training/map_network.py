"""The entropy network of the importance map in float, as it is trained (paper, section 3.4).

Invariant: each position sees exactly what a decoder knows by then. The parities here define that
order, and `entropy.map_coder` follows it in integers, which are made from these weights at export.
The codes have their network in `code_network`. Activations are clamped to [0, 4) because the
integer form has seven bits for them. This module knows levels, no codes and no pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.config import ModelConfig


def clamped_relu(x: Tensor) -> Tensor:
    """ReLU with the ceiling of the integer form: [0, 4]."""
    return F.hardtanh(x, 0, 4)  # `clamp` goes over the data several times in its backward pass


def level_as_input(level: Tensor, levels: int) -> Tensor:
    """Levels, any shape -> network input in steps of 1/4, centred: (level - levels/2) / 4."""
    return (level - levels // 2) / 4


class MapNetwork(nn.Module):
    """Probabilities of importance levels, coarse to fine; a level is a path in a binary tree."""

    paths: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.map_channels
        nodes = config.levels - 1
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
        visible = level_as_input(level, self.levels) * known
        x = torch.cat([visible, known, torch.ones_like(level)], 1)  # [B,3,h,w]
        shift = (self.quality(quality_index) + self.stage.weight[stage])[:, :, None, None]
        h = self.conv1(x)
        h = clamped_relu(h + shift.to(h.dtype))
        return self.out(clamped_relu(self.conv3(clamped_relu(self.conv2(h))))).float()

    def forward(self, level: Tensor, quality_index: Tensor) -> Tensor:
        """level [B,1,h,w], quality_index [B] -> log2 p of all levels, [B,levels,h,w]."""
        # Where nothing is known, the quality alone says what to expect.
        batch, _, height, width = level.shape
        start = self.log2_levels(self.coarsest(quality_index)[:, :, None, None].float())
        out = start.expand(batch, self.levels, height, width)

        # Every scale halves the one before: first the centres of its squares, then their edges.
        for step, scale in enumerate((4, 2, 1)):
            grid = level[:, :, ::scale, ::scale]
            y = torch.arange(grid.shape[2], device=level.device)[:, None] % 2
            x = torch.arange(grid.shape[3], device=level.device)[None] % 2
            # Corners were coded at the coarser scale.
            corners = ((y == 0) & (x == 0)).to(grid.dtype)[None, None].expand_as(grid)
            quincunx = (y == x).to(grid.dtype)[None, None].expand_as(grid)  # corners and centres
            centre = self.log2_levels(self.nodes(grid, corners, quality_index, 2 * step))
            edge = self.log2_levels(self.nodes(grid, quincunx, quality_index, 2 * step + 1))
            at_scale = torch.where(y != x, edge, out[:, :, ::scale, ::scale])
            at_scale = torch.where((y == 1) & (x == 1), centre, at_scale)
            out = out.clone()
            out[:, :, ::scale, ::scale] = at_scale
        return out


def tree_paths(levels: int) -> Tensor:
    """The paths from the root of a binary tree to its leaves, the levels: [levels-1,levels].

    +1 and -1 where the path to a level takes the 1 and the 0 branch of a node, 0 off the path.
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
