"""Handlers of MONAI's engines: validation, early stopping, history, checkpoints, contact sheets, result files."""

from .training import (
    EarlyStop,
    Handler,
    History,
    LowAccuracyGuard,
    Progress,
    ScheduledValidation,
    find_handler,
    register_handler,
)

__all__ = [
    "EarlyStop",
    "Handler",
    "History",
    "LowAccuracyGuard",
    "Progress",
    "ScheduledValidation",
    "find_handler",
    "register_handler",
]
