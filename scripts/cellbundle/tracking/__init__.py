"""Experiment tracking with MLflow, off unless a tracking URI is given.

What is logged goes to a file at once (``spool``); a thread (``sender``) brings it to the server (``upload``). The
server may be slow, down or gone, and the process may be killed at any moment: nothing is lost, nothing arrives twice.
"""

from .session import end_status, forget_run, log_results, start_run
from .tracker import Tracker

__all__ = [
    "Tracker",
    "end_status",
    "forget_run",
    "log_results",
    "start_run",
]
