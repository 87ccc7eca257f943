import os
import shutil

import pytest

from policies.smart.native.library import library


@pytest.fixture
def kernels() -> None:
    """Skips the test where the machine has no C compiler, or the kernels are not wanted."""
    if os.environ.get("CATK_SIM_NATIVE") == "0":
        pytest.skip("native kernels are switched off")
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        pytest.skip("there is no C compiler")
    assert library() is not None
