"""MONAI dictionary transforms: thin wrappers around the pure functions of the core."""

from .augment import RandChannelsd, RandCropAffined, RandSignedAffined
from .binary import BinaryTargetsd, DecodeBinaryd
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
from .negatives import RandNegatived
from .resize import ResizeCelld
from .stain import RandStaind

__all__ = [
    "BinaryTargetsd",
    "DecodeBinaryd",
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
    "RandNegatived",
    "RandSignedAffined",
    "RandStaind",
    "RenumberLabelsd",
    "ResizeCelld",
    "SaveClassesd",
    "SaveLabelsd",
    "ToPictureLayoutd",
    "normalise_intensity",
    "to_channels",
]
