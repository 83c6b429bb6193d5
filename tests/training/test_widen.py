"""training/widen.py: more channels for a trained model, without losing what it can."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from places import TRAINING
from safetensors.torch import load_file, save_file
from training_pictures import write_pieces

from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.joint_codec import JointCodec

SCRIPT = TRAINING / "widen.py"
NARROW = recipes.load("smoke").model
WIDE = replace(NARROW, kept_planes=(0, 4, 12, 48))


def test_a_wider_model_decodes_the_same_and_learns_from_there(tmp_path: Path) -> None:
    """Codes of the old channels decode to the same picture and are predicted alike.

    The new ones are 0 there. With the new channels the picture comes closer to the original, and
    their codes are predicted with finite scales.
    """
    write_pieces(tmp_path / "photos")
    torch.manual_seed(0)
    narrow, wide = JointCodec(NARROW).eval(), JointCodec(WIDE).eval()
    narrow.load_state_dict(
        {name: tensor.half().float() for name, tensor in narrow.state_dict().items()}
    )
    save_file(
        {name: tensor.half() for name, tensor in narrow.state_dict().items()},
        tmp_path / "narrow.safetensors",
    )
    text = recipes.locate("smoke").read_text()
    (tmp_path / "wide.toml").write_text(text.replace("[0, 4, 12, 32]", "[0, 4, 12, 48]"))
    command = [
        sys.executable,
        SCRIPT,
        "narrow.safetensors",
        "wide.toml",
        "wide.safetensors",
        "--data",
        "photos",
    ]
    printed = subprocess.run(
        [*command, "--blocks", "3000"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    before, after = (
        float(value) for value in re.findall(r"\d+\.\d+", printed)
    )  # mean squared errors
    wide.load_state_dict(
        {name: tensor.float() for name, tensor in load_file(tmp_path / "wide.safetensors").items()}
    )
    codes = torch.randint(-4, 5, (1, 32, 6, 5)).float()
    more = torch.cat([codes, torch.zeros(1, 16, 6, 5)], 1)
    index, level = torch.tensor([5]), torch.full((1, 1, 6, 5), 3.0)
    with torch.no_grad():
        torch.testing.assert_close(
            wide.decoder(more, index), narrow.decoder(codes, index), rtol=1e-3, atol=1e-3
        )
        old, new = narrow.planes(codes, level, index), wide.planes(more, level, index)
    for a, b in zip(old, new, strict=True):
        torch.testing.assert_close(a, b[:, :32], rtol=1e-3, atol=1e-3)
        assert bool(b.isfinite().all())
    assert after < 0.9 * before
