"""Experiment tracking with MLflow, off unless a tracking URI is given.

``tracker`` writes records to a file immediately (``spool``); a thread (``sender``) sends them to the server
(``upload``). The server may be down and the process may be killed: no record is lost or arrives twice.
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
