"""Waymo's own protocol buffer classes: needed to write Waymo's files, not to read them."""

import importlib
from typing import Any

_INSTALL = "pip install protobuf && pip install --no-deps waymo-open-dataset-tf-2-12-0==1.6.7"


def waymo_protos(name: str) -> Any:
    """Imports one of Waymo's protocol buffer modules.

    Args:
        name: The module's name in `waymo_open_dataset.protos`, such as "scenario_pb2".

    Raises:
        ImportError: If Waymo's package is absent. It has builds for Linux on x86-64 only.
    """
    try:
        return importlib.import_module(f"waymo_open_dataset.protos.{name}")
    except ImportError as error:
        raise ImportError(
            f"this needs Waymo's protocol buffers ({name}), which have builds for Linux on x86-64 "
            f"only: {_INSTALL}"
        ) from error
