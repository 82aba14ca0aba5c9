"""Run prompts against many models and trust what comes out.

```python
import evalrun

run = evalrun.run("configs/quickstart.yaml")
run.results  # polars.LazyFrame: one row per sample × prompt × model × repeat
```

Importing this package costs nothing: each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalrun.api import Run, load, run, run_async
    from evalrun.errors import AuthorError, EvalrunError, StoreError

__version__ = "0.1.0"

__all__ = ["AuthorError", "EvalrunError", "Run", "StoreError", "__version__", "load", "run", "run_async"]

_HOMES = {
    "AuthorError": "evalrun.errors",
    "EvalrunError": "evalrun.errors",
    "Run": "evalrun.api",
    "StoreError": "evalrun.errors",
    "load": "evalrun.api",
    "run": "evalrun.api",
    "run_async": "evalrun.api",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
