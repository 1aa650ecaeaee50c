"""The parts of ``end2end.py``: inputs, paths from file to file, stages, overlaps, memory and tables."""
