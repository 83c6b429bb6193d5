"""Widen a trained model's range of rates.

Steps become coarser at the lowest quality and finer at the highest.

    python training/stretch.py WEIGHTS.safetensors OUT.safetensors --lowest -0.08 --highest 0.03

WEIGHTS are a run's `weights.safetensors`. The logarithm of every gain, the encoder's and the
decoder's alike, changes by these amounts at the two ends and not at all in the middle; features
stay what they were. Lambda at the ends follows as the square of the gain: multiply the recipe's by
the two numbers that are printed.
"""

import argparse
import math
from pathlib import Path

from safetensors.torch import load_file, save_file


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lowest", type=float, required=True)
    parser.add_argument("--highest", type=float, required=True)
    options = parser.parse_args()

    # Coefficients [3,n] are of 1, t and t^2, t from -1 to 1.
    weights = load_file(options.weights)
    for network in ("encoder", "decoder"):
        coefficients = weights[f"{network}.gain.coefficients"]
        coefficients[1] += (options.highest - options.lowest) / 2
        coefficients[2] += (options.highest + options.lowest) / 2
    save_file(weights, options.out)
    print(
        f"lambda_min times {math.exp(2 * options.lowest):.3f}, lambda_max times "
        f"{math.exp(2 * options.highest):.3f}"
    )


if __name__ == "__main__":
    main()
