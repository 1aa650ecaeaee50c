"""What a person reads after a run: the results page of a prediction."""

from .page import ImageResult, Run, write_page

__all__ = ["ImageResult", "Run", "write_page"]
