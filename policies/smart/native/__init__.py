"""Kernels in C for what torch has no fast one for on a processor. See `library`."""
