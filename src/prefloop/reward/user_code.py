"""Objects in a user's own Python file, named `file.py:name`: reward functions and algorithms.

Torch-free: the settings of a custom algorithm are read for `--help`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from prefloop.types import EnvironmentStop, InputError


def is_user_code(spec: str) -> bool:
    """Whether `spec` names an object in a Python file, not a directory or a built-in name."""
    return ".py:" in spec


def file_of(spec: str) -> Path:
    """The file of `file.py:name`."""
    return Path(spec.rpartition(":")[0])


def load_user_object(spec: str, *, field: str) -> Any:
    """The object that `file.py:name` names; the file is run anew each time.

    Raises InputError if there is no such file or name, or if running the file fails.
    """
    path, name = file_of(spec), spec.rpartition(":")[2]
    if not path.is_file():
        raise InputError("no such file", path=path, field=field)
    # Under a name of its own: a file called json.py must not take the place of the library's json.
    module_name = f"_prefloop_user_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(module_name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    # Registered before it runs: pydantic looks names in annotations up there.
    sys.modules[module_name] = module
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise user_error(error, path, field=field) from error
    if name not in vars(module):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module_name]
        raise InputError(f"no {name} in this file", path=path, field=field, remedy=f"it has {', '.join(own) or 'none'}")
    return vars(module)[name]


def user_error(error: Exception, path: Path, *, field: str) -> Exception:
    """What to raise where code in the user's file `path` raised `error`: its type and text with the innermost line.

    Errors that already speak to the user (a reward server that is away, say) stay as they are.
    """
    if isinstance(error, InputError | EnvironmentStop):
        return error
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return InputError(f"raised {type(error).__name__}: {text}", path=path, line=line, field=field)
