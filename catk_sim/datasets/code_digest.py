"""A digest of code, so that what was computed by other code is not taken for current."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


def code_digest(module: ModuleType) -> str:
    """Computes a digest of a module and of all that it imports, directly or not, from its project.

    It is the same wherever the project is installed.
    """
    project, *inner = module.__name__.split(".")
    # Of a package, `__file__` is its `__init__.py`, one folder deeper than the file of a module.
    depth = len(inner) + hasattr(module, "__path__")
    root = Path(str(module.__file__)).parents[depth]
    found: dict[str, bytes] = {}
    waiting = [module.__name__]
    while waiting:
        name = waiting.pop()
        path = _file_of(name, root)
        if name in found or path is None or name.split(".")[0] != project:
            continue
        found[name] = path.read_bytes()
        waiting += _imports(found[name])
    digest = hashlib.sha256()
    for name, code in sorted(found.items()):
        digest.update(f"{name} {len(code)} ".encode() + code)
    return digest.hexdigest()


def _file_of(name: str, root: Path) -> Path | None:
    stem = root.joinpath(*name.split("."))
    candidates = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _imports(code: bytes) -> Iterator[str]:
    """Names what may be modules among all that some code imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
