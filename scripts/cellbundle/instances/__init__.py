"""Instances of an image: label maps, overlapping masks, outlines, detections and measurements."""

from .result import Instances

__all__ = ["Instances"]
