"""MONAI dictionary transforms: thin wrappers around the pure functions of the core."""

from .augment import RandChannelsd, RandCropAffined
from .files import LoadCelld, SaveLabelsd
from .intensity import NormaliseIntensityd, normalise_intensity, to_channels
from .masks import DecodeFlowsd, FlowTargetsd, RenumberLabelsd, ToPictureLayoutd

__all__ = [
    "DecodeFlowsd",
    "FlowTargetsd",
    "LoadCelld",
    "NormaliseIntensityd",
    "RandChannelsd",
    "RandCropAffined",
    "RenumberLabelsd",
    "SaveLabelsd",
    "ToPictureLayoutd",
    "normalise_intensity",
    "to_channels",
]
