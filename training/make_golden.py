"""Write the golden files of the tests.

Run once per format version and model, never to make a failing test pass:

    python training/make_golden.py tests/golden

Files of the default model go there, those of a tiny model into `tiny`, beside its weights file. The
tiny model is not trained, but its codes, levels and predictions take many values, past the ladder
and past what counts as context; it is the one of the document's test vectors. What is in `tiny`
already stays as it is: a new default model changes the others only. To make it anew, remove the
folder, and put its numbers into docs/format.md again.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import pillow_cwic
from pillow_cwic.networks.config import ModelConfig
from pillow_cwic.tools.demo import SHIPPED
from pillow_cwic.training.integer_weights import export_weights
from pillow_cwic.training.joint_codec import JointCodec

Pictures = dict[str, tuple[np.ndarray, dict[str, object]]]

TINY = ModelConfig(
    kept_planes=(0, 2, 6, 16),
    quality_count=8,
    encoder_channels=(6, 8, 10),
    encoder_blocks=(1, 1, 1),
    decoder_channels=(6, 8, 10),
    decoder_blocks=(2, 1, 1),
    outer_side=3,
    importance_channels=4,
    context_features=12,
    context_layers=2,
    map_features=6,
    map_channels=6,
    ladder=3,
    lambda_min=0.0006,
    lambda_max=0.08,
    ms_ssim_weight=(0.0, 0.0),
    ssim_weight=(0.0, 0.0),
)


def golden_pictures(photo: np.ndarray) -> Pictures:
    """Name -> pixels and options: every mode, odd sizes, several qualities, metadata, regions."""
    # Pieces of the photograph, and planes that are none.
    face = photo[40:168, 150:342]
    patch = photo[200:273, 60:161]
    alpha = np.tile(np.arange(101, dtype=np.uint8) * 2, (73, 1))
    importance = np.full(face.shape[:2], 64, np.uint8)
    importance[32:96, 64:128] = 255
    metadata: dict[str, object] = {
        "icc_profile": b"icc",
        "exif": b"Exif\0\0MM",
        "xmp": b"<x/>",
        "dpi": (300, 299.5),
        "comment": "hej",
    }

    # Each case shows one thing.
    return {
        "rgb-low": (face, {"quality": 10 / 63}),
        "rgb-high": (face, {"quality": 1.0}),
        "grey": (patch[:, :, 1], {"quality": 0.5}),
        "rgba": (np.dstack([patch, alpha]), {"quality": 0.3}),
        "grey-alpha": (np.dstack([patch[:, :, 1], alpha]), {"quality": 0.0}),
        "one-pixel": (photo[:1, :1], {}),
        "metadata": (patch, metadata),
        "region": (face, {"quality": 0.4, "importance": importance}),
    }


def tiny_pictures(photo: np.ndarray) -> Pictures:
    """The same for the tiny model, fewer and smaller: noise is all that it decodes to."""
    patch = photo[60:125, 200:281]
    alpha = np.tile(np.arange(81, dtype=np.uint8) * 3, (65, 1))
    importance = np.tile(np.arange(81, dtype=np.uint8) * 3, (65, 1))
    return {
        "one-pixel": (photo[:1, :1], {}),
        "rgb": (patch, {"quality": 1.0}),
        "grey-alpha": (np.dstack([patch[:, :, 1], alpha]), {"quality": 0.3}),
        "region": (patch, {"quality": 0.5, "importance": importance}),
    }


def write_tiny(path: Path) -> None:
    """The weights file of the tiny model; the same bytes each time."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(10)
        codec = JointCodec(TINY).eval()

        # Away from the zeros that fresh entropy networks begin with.
        for name, parameter in codec.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(torch.randn_like(parameter) * 0.1)
        # Probabilities far from even.
        for layer in (codec.maps.coarsest, codec.maps.out):
            layer.weight.mul_(20.0)
        for step in codec.planes.step:
            step.out.weight.mul_(10.0)

        # Large codes in the channels that most keep, levels that differ from place to place.
        for gain in (codec.encoder.gain, codec.decoder.gain):
            gain.coefficients[0, :3] += torch.tensor([3.0, 2.0, 1.0])
        last = codec.encoder.convolution("importance.3")
        last.weight.mul_(3000.0)
        last.bias.fill_(1.5)
        export_weights(codec, path)


def write(folder: Path, pictures: Pictures, model: Path | None) -> None:
    """Encode the pictures, and keep beside each what it decodes to."""
    for name, (pixels, options) in pictures.items():
        data = pillow_cwic.encode(pixels, device="cpu", model=model, **options)
        (folder / f"{name}.cwic").write_bytes(data)
        Image.fromarray(pillow_cwic.decode(data, device="cpu")).save(folder / f"{name}.png")


if __name__ == "__main__":
    golden = Path(sys.argv[1])
    tiny = golden / "tiny"
    photo = np.asarray(Image.open(SHIPPED).convert("RGB"))
    write(golden, golden_pictures(photo), None)
    if not tiny.exists():
        tiny.mkdir()
        write_tiny(tiny / "tiny.safetensors")
        write(tiny, tiny_pictures(photo), tiny / "tiny.safetensors")
