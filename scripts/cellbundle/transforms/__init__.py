"""MONAI dictionary transforms: thin wrappers around the pure functions of the core."""

from .augment import RandChannelsd, RandCropAffined
from .boxes import InstanceMapsd
from .classes import LoadClassesd, SaveClassesd
from .detections import DecodeDetectionsd
from .files import LoadCelld, SaveLabelsd
from .intensity import NormaliseIntensityd, normalise_intensity, to_channels
from .masks import (
    DecodeFlowsd,
    DecodeHoverd,
    FlowTargetsd,
    HoverTargetsd,
    RenumberLabelsd,
    ToPictureLayoutd,
)

__all__ = [
    "DecodeDetectionsd",
    "DecodeFlowsd",
    "DecodeHoverd",
    "FlowTargetsd",
    "HoverTargetsd",
    "InstanceMapsd",
    "LoadCelld",
    "LoadClassesd",
    "NormaliseIntensityd",
    "RandChannelsd",
    "RandCropAffined",
    "RenumberLabelsd",
    "SaveClassesd",
    "SaveLabelsd",
    "ToPictureLayoutd",
    "normalise_intensity",
    "to_channels",
]
