"""Packages that only some users need."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(name: str, purpose: str) -> Iterator[None]:
    """Says what to install where an import within fails.

    Args:
        name: The extra, as in `pip install 'catk-sim[name]'`.
        purpose: What it is for.

    Raises:
        ImportError: Instead of that of the import.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{purpose} needs more: pip install 'catk-sim[{name}]'") from error
