"""Bytes of real streams against the float model's own estimate (cross-entropy), picture by picture.

    python benchmarks/rate.py FOLDER FLOAT_WEIGHTS [--quality-index 10 30 50]

FLOAT_WEIGHTS is the trained float model as safetensors (training/models/*-training.safetensors):
the shipped file holds only the integers made from it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from pillow_cwic import analysis
from pillow_cwic.runtime import devices
from pillow_cwic.training.code_network import logistic_bits
from pillow_cwic.training.joint_codec import JointCodec
from pillow_cwic.weights import models


def load_joint(path: str) -> JointCodec:
    """The float model; the configuration is the shipped model's."""
    joint = JointCodec(models.load(None, torch.device("cpu")).config).eval()
    joint.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return joint


def real_and_estimated(
    joint: JointCodec, pixels: np.ndarray, quality_index: int
) -> tuple[int, float]:
    """Bytes of one stream of the rounded codes, and of the float networks' cross-entropy."""
    # As the encoder has it, and as the networks in training take it.
    loaded = models.load(None, torch.device("cpu"))
    coded = analysis.Analysis(loaded, pixels).coded(quality_index)
    index = torch.tensor([quality_index])
    level = coded.level[None, None].float()  # [1,1,h,w]
    codes = coded.codes.permute(2, 0, 1)[None].float()  # [1,n,h,w]
    kept = level >= torch.tensor(joint.config.first_level)[None, :, None, None]

    with devices.inference():
        stream = loaded.entropy.encode(coded.codes, coded.level, quality_index)
        mean, log_s = joint.planes(codes, level, index)
        bits = (logistic_bits(codes, mean, log_s) * kept).double().sum()
        bits -= joint.maps(level, index).gather(1, level.long()).double().sum()
    return len(stream), float(bits) / 8


def main() -> None:
    """Parse the command line and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("float_weights")
    parser.add_argument("--quality-index", type=int, nargs="+", default=[10, 30, 50])
    args = parser.parse_args()

    joint = load_joint(args.float_weights)
    pictures = [
        np.array(Image.open(path).convert("RGB")) for path in sorted(args.folder.glob("*.png"))
    ]
    header = ("quality index", "streams, bytes", "estimate, bytes", "streams / estimate")
    print("| " + " | ".join(header) + " | worst picture |")
    print("|---|---|---|---|---|")

    # Over all pictures, and for the one that is estimated worst.
    for index in args.quality_index:
        pairs = [real_and_estimated(joint, pixels, index) for pixels in pictures]
        real, estimated = (sum(column) for column in zip(*pairs, strict=True))
        worst = max(stream / estimate for stream, estimate in pairs)
        print(
            f"| {index} | {real} | {estimated:.0f} | {real / estimated:.4f} | {worst:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
