"""training/broaden.py: broader trunks for a trained model, which starts as the smaller one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from places import TRAINING
from safetensors.torch import load_file, save_file

from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.joint_codec import JointCodec

SCRIPT = TRAINING / "broaden.py"
CHANNELS = ("quarter_channels", "eighth_channels", "sixteenth_channels")


def test_a_broader_model_starts_as_the_old_one_and_learns_everywhere(tmp_path: Path) -> None:
    """Features, importance and pictures stay as they were, by every quality.

    What reads new channels has a gradient.
    """
    torch.manual_seed(0)
    narrow = JointCodec(recipes.load("smoke").model).eval()
    for weight in narrow.parameters():
        weight.data = (
            (weight + 0.1 * torch.randn_like(weight)).half().float()
        )  # trained: nothing is the identity
    save_file(
        {name: tensor.half() for name, tensor in narrow.state_dict().items()},
        tmp_path / "narrow.safetensors",
    )
    text = recipes.locate("smoke").read_text()
    config = replace(narrow.config, **{name: getattr(narrow.config, name) + 8 for name in CHANNELS})
    for name in CHANNELS:
        text = text.replace(
            f"{name} = {getattr(narrow.config, name)}", f"{name} = {getattr(config, name)}"
        )
    (tmp_path / "broad.toml").write_text(text)
    command = [sys.executable, SCRIPT, "narrow.safetensors", "broad.toml", "broad.safetensors"]
    subprocess.run(command, cwd=tmp_path, check=True)
    broad = JointCodec(config).eval()
    broad.load_state_dict(
        {name: tensor.float() for name, tensor in load_file(tmp_path / "broad.safetensors").items()}
    )

    x, codes = (
        torch.rand(3, 3, 64, 64),
        torch.randint(-4, 5, (3, narrow.config.channels, 4, 4)).float(),
    )
    index = torch.tensor([0, 3, narrow.config.quality_count - 1])
    for old, new in zip(narrow.encoder(x, index), broad.encoder(x, index), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        broad.decoder(codes, index), narrow.decoder(codes, index), rtol=1e-3, atol=1e-3
    )

    features, importance = broad.encoder(x, index)
    (
        features.square().mean()
        + importance.square().mean()
        + broad.decoder(codes, index).square().mean()
    ).backward()
    for network in (broad.encoder, broad.decoder):
        reducing = [w for name, w in network.named_parameters() if name.endswith("reduce.weight")]
        assert len(reducing) >= 3
        assert all(bool(weight.grad[:, -8:].any()) for weight in reducing)
