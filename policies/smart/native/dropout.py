"""What kernels drop at random."""

import ctypes

import torch


class Dropout(ctypes.Structure):
    """`struct dropout`."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("seed", "other_seed", "limit")),
        ("growth", ctypes.c_float),
    ]

    @classmethod
    def draw(cls, part: float) -> "Dropout":
        """Has a part of some numbers dropped, and draws which, unless it is none."""
        seeds = torch.randint(2**31, (2,)).tolist() if part else (0, 0)
        return cls(*seeds, int(part * 2**32), 1 / (1 - part))
