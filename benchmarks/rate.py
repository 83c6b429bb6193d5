"""Bytes of real files against the float model's own estimate (cross-entropy), picture by picture.

    python benchmarks/rate.py FOLDER FLOAT_WEIGHTS [--quality-index 10 30 50]

FLOAT_WEIGHTS is the trained float model as safetensors, in this code base's names or the prototype's: the shipped file
holds only the integers made from it.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

import pillow_cwic
from pillow_cwic import model, weights, windows
from pillow_cwic.training.joint import JointCodec

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from import_prototype import renamed


def load_joint(path: str) -> JointCodec:
    """The float model; the configuration is the shipped model's."""
    joint = JointCodec(weights.load(None, torch.device("cpu")).config).eval()
    joint.load_state_dict({renamed(name): value.float() for name, value in load_file(path).items()})
    return joint


def estimated_bits(joint: JointCodec, pixels: np.ndarray, quality_index: int) -> float:
    """Cross-entropy of the codes and levels that the encoder writes."""
    codes, level, _ = windows.Analysis(weights.load(None, torch.device("cpu")), pixels).codes(quality_index)
    index, q, values = torch.tensor([quality_index]), level[None, None].float(), codes.permute(2, 0, 1)[None].float()
    with model.inference():
        logits = joint.planes(values, q, index)
        plane_bits = F.softplus(-logits * values)[values != 0].double().sum() / math.log(2)
        map_bits = -joint.maps(q, index).gather(1, q.long()).double().sum()
    return float(plane_bits + map_bits)


def main() -> None:
    """Parse the command line and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("float_weights")
    parser.add_argument("--quality-index", type=int, nargs="+", default=[10, 30, 50])
    args = parser.parse_args()
    joint = load_joint(args.float_weights)
    print("| quality index | files, bytes | estimate, bytes | files / estimate | worst picture, stream / estimate |")
    print("|---|---|---|---|---|")
    for index in args.quality_index:
        sizes, estimates = [], []
        for path in sorted(args.folder.glob("*.png")):
            pixels = np.array(Image.open(path).convert("RGB"))
            data = pillow_cwic.encode(pixels, quality=index / 63, device="cpu")
            sizes.append(len(data))
            estimates.append(estimated_bits(joint, pixels, index) / 8)
        worst = max((size - 52) / estimate for size, estimate in zip(sizes, estimates, strict=True))  # 52: the frame
        ratio = sum(sizes) / sum(estimates)
        print(f"| {index} | {sum(sizes)} | {sum(estimates):.0f} | {ratio:.4f} | {worst:.4f} |", flush=True)


if __name__ == "__main__":
    main()
