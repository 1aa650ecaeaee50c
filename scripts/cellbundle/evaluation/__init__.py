"""Evaluation of label maps against a datalist: scores, summaries of groups, and reports."""

from .files import REPORT_FILES, check_report_folder, format_report, write_evaluation, write_metrics, write_report
from .folder import evaluate_folder, read_groups
from .result import ALL, KEY_COLUMNS, Evaluation, Failure, build_evaluation, metrics_content, report_content, summarise

__all__ = [
    "ALL",
    "KEY_COLUMNS",
    "REPORT_FILES",
    "Evaluation",
    "Failure",
    "build_evaluation",
    "check_report_folder",
    "evaluate_folder",
    "format_report",
    "metrics_content",
    "read_groups",
    "report_content",
    "summarise",
    "write_evaluation",
    "write_metrics",
    "write_report",
]
