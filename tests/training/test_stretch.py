"""training/stretch.py: a wider range of rates for a trained model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import TRAINING
from safetensors.torch import load_file, save_file

from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.joint_codec import JointCodec

SCRIPT = TRAINING / "stretch.py"


def test_gains_move_at_the_ends(tmp_path: Path) -> None:
    """Both networks' gains change by what was asked at the ends, and nothing else changes.

    Not in the middle. Lambda follows as the square of the encoder's gain: what makes steps finer by
    a tenth is worth 1.21 times the error.
    """
    torch.manual_seed(0)
    config = recipes.load("smoke").model
    before, after = JointCodec(config), JointCodec(config)
    save_file(before.state_dict(), tmp_path / "a.safetensors")
    command = [sys.executable, SCRIPT, tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    command += ["--lowest", "-0.08", "--highest", "0.03"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "lambda_min times 0.852, lambda_max times 1.062\n"
    after.load_state_dict(load_file(tmp_path / "b.safetensors"))
    last = config.quality_count - 1
    index, x = torch.tensor([0.0, last / 2, last]), torch.ones(3, config.channels, 1, 1)
    with torch.no_grad():
        # The encoder multiplies by its gain, the decoder divides by its own.
        for name, sign in (("encoder", 1), ("decoder", -1)):
            old, new = (getattr(joint, name).gain(x, index) for joint in (before, after))
            change = sign * (new / old).log()[:, :, 0, 0]  # [3,n]
            for row, expected in zip(change, (-0.08, 0.0, 0.03), strict=True):
                assert row.tolist() == pytest.approx([expected] * config.channels, abs=1e-5)
    changed = [
        name
        for name, tensor in before.state_dict().items()
        if not torch.equal(tensor, after.state_dict()[name])
    ]
    assert changed == ["encoder.gain.coefficients", "decoder.gain.coefficients"]
