"""Instance matching and scores."""

from .accumulate import InstanceScores, pool
from .binary import BinaryScores, binary_output
from .handler import InstanceScoresHandler
from .matching import Matches, Overlap, match, overlap_table
from .scores import IOU_THRESHOLDS, aggregated_jaccard, image_scores, instance_ratios

__all__ = [
    "IOU_THRESHOLDS",
    "BinaryScores",
    "InstanceScores",
    "InstanceScoresHandler",
    "Matches",
    "Overlap",
    "aggregated_jaccard",
    "binary_output",
    "image_scores",
    "instance_ratios",
    "match",
    "overlap_table",
    "pool",
]
