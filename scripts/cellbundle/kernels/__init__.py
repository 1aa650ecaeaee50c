"""Compiled loops (numba). They release the GIL and use no threading layer of numba's, so they are safe after a fork."""
