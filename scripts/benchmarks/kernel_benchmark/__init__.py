"""The parts of ``kernels.py``: inputs, peers, agreement, and the process that measures."""
