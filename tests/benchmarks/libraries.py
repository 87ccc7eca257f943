"""Memory of libraries, made comparable.

Linux counts a page of a library as a process's memory when it holds it near to one that the process
reads. Of torch's largest library these are 160 MB right after it was installed, while all of it is
in the system's cache, and 80 MB once the machine was started anew, for the same work.
"""

import ctypes
import os
import sys
from pathlib import Path

_MADV_PAGEOUT = 21


def forget_pages(folder: Path) -> None:
    """Has Linux hold no page of a folder's libraries, until somebody reads it again.

    This process gives back those that it has mapped, as held pages stay. They are read again when
    they are needed; what was written to is kept.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text().splitlines():
        if f" {folder}/" in line:
            begin, end = (int(address, 16) for address in line.split()[0].split("-"))
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_PAGEOUT)
    for library in folder.glob("*.so*"):
        with library.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
