"""The two families of models, told apart by their configuration: the joint module to train, the integers to export."""

from torch import Tensor

from ..config import AnyConfig, SuccessiveConfig
from .joint import JointCodec
from .quantize import quantize
from .successive_joint import SuccessiveCodec
from .successive_quantize import quantize_successive

AnyCodec = JointCodec | SuccessiveCodec


def joint_codec(config: AnyConfig) -> AnyCodec:
    """The untrained codec of a configuration."""
    return SuccessiveCodec(config) if isinstance(config, SuccessiveConfig) else JointCodec(config)


def entropy_tensors(joint: AnyCodec) -> dict[str, Tensor]:
    """All `entropy.*` tensors of the joint codec's weights file."""
    if isinstance(joint, SuccessiveCodec):
        return quantize_successive(joint.planes, joint.maps, joint.config.ladder)
    return quantize(joint.planes, joint.maps, joint.config)
