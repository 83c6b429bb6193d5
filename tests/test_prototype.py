"""Networks, masks and entropy networks equal the prototype's golden tensors, and real bytes equal its estimate."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pillow_cwic import tiling, weights, windows, workers
from pillow_cwic.config import ModelConfig
from pillow_cwic.importance import kept
from pillow_cwic.training.joint import JointCodec

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs ../shared: the prototype's golden tensors and weights"
)


@pytest.fixture(scope="module")
def joint() -> JointCodec:
    """The float model with the prototype's weights."""
    from safetensors.torch import load_file

    sys.path.insert(0, str(ROOT / "training"))
    from import_prototype import renamed

    codec = JointCodec(ModelConfig()).eval()
    state = load_file(SHARED / "reference" / "base-0.safetensors")
    codec.load_state_dict({renamed(name): value.float() for name, value in state.items()})
    return codec


@pytest.fixture(scope="module")
def golden():
    """One 256x192 picture at quality index 30 on its way through the prototype."""
    return np.load(SHARED / "reference" / "golden.npz")


def test_the_encoder_gives_the_prototypes_levels_and_bits(golden):
    """Importance levels and kept code bits of the golden picture are the prototype's, bit for bit."""
    model = weights.load(None, torch.device("cpu"))
    codes, level, _ = windows.Analysis(model, golden["image"]).codes(30)
    assert np.array_equal(level.numpy(), golden["levels"])
    exists = kept(level, model.config.first_level)
    assert np.array_equal(np.packbits(exists.permute(2, 0, 1).numpy()), golden["kept"])
    bits = torch.from_numpy(np.unpackbits(golden["bits"]).reshape(128, *level.shape)).permute(1, 2, 0)
    assert torch.equal(codes, (bits.to(torch.int8) * 2 - 1) * exists)


def test_the_decoder_gives_the_prototypes_picture(golden):
    """The golden codes decode to the prototype's picture within 1 of 255."""
    model = weights.load(None, torch.device("cpu"))
    h, w = golden["levels"].shape
    sign = np.unpackbits(golden["bits"]).reshape(128, h, w).astype(np.int8) * 2 - 1
    codes = torch.from_numpy(sign * np.unpackbits(golden["kept"]).reshape(128, h, w).astype(np.int8))
    picture = windows.synthesize(
        model, codes.permute(1, 2, 0), (30, None), tiling.Box(0, 0, w, h), tiling.Box(0, 0, 256, 192)
    )
    assert np.abs(picture.astype(int) - golden["decoded"].astype(int)).max() <= 1


def test_the_entropy_networks_give_the_prototypes_logits(joint, golden):
    """Float logits of the planes and log-probabilities of the levels equal the stored samples."""
    h, w = golden["levels"].shape
    level = torch.from_numpy(golden["levels"].astype(np.float32))[None, None]
    sign = torch.from_numpy(np.unpackbits(golden["bits"]).reshape(1, 128, h, w).astype(np.float32)) * 2 - 1
    codes = sign * torch.from_numpy(np.unpackbits(golden["kept"]).reshape(1, 128, h, w).astype(np.float32))
    with torch.inference_mode():
        logits = joint.planes(codes, level, torch.tensor([30]))[0]
        log2_p = joint.maps(level, torch.tensor([30]))[0]
    assert (logits[::16] - torch.from_numpy(golden["code_logits"])).abs().max() < 1e-3
    stored = torch.from_numpy(golden["map_log2p"].astype(np.float32))  # kept as float16: 11 bits
    assert ((log2_p - stored) / stored).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["kodim05", "kodim13", "kodim23"])
@pytest.mark.parametrize("quality_index", [10, 30, 50])
def test_real_bytes_match_the_float_models_estimate(joint, name, quality_index):
    """A picture's coded bytes are within 0.5% (and the coder's last word) of the float cross-entropy.

    A round trip cannot show a wrong context: the file would still decode, only larger.
    """
    pixels = np.array(Image.open(SHARED / "data" / "kodak" / f"{name}.png").convert("RGB"))
    model, index = weights.load(None, torch.device("cpu")), torch.tensor([quality_index])
    codes, level, _ = windows.Analysis(model, pixels).codes(quality_index)
    stream = workers.map_one_thread(lambda c: model.entropy.encode(c, level, quality_index), [codes])[0]
    with torch.inference_mode():
        q, values = level[None, None].float(), codes.permute(2, 0, 1)[None].float()
        logits = joint.planes(values, q, index)
        bits = torch.nn.functional.softplus(-logits * values)[values != 0].double().sum() / math.log(2)
        bits -= joint.maps(q, index).gather(1, q.long()).double().sum()
    assert 0.99 < (len(stream) - 4) * 8 / bits.item() < 1.005
