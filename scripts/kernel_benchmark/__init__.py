"""The parts of ``benchmark_kernels.py``: inputs, peers, agreement, and the process that measures."""
