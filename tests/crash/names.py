"""Names drawn from a fixed sequence, so that a tracer can tell beforehand which file is which."""

import itertools
import secrets
import sys

RUN_ID = "20260101-000000000-00000a"


def fix_names(prefix: str) -> None:
    """Let the one run be called `RUN_ID`, and temporary files `.tmp-PREFIX0000`, `.tmp-PREFIX0001` and so on."""
    numbers = itertools.count()

    def draw_name(nbytes: int | None = None) -> str:
        del nbytes
        return f"{prefix}{next(numbers):04d}"

    secrets.token_hex = draw_name
    holders = [module for name, module in sys.modules.items() if name.startswith("evalrun.")]
    changed = [module for module in holders if hasattr(module, "make_run_id")]
    assert changed, "nothing of evalrun makes run ids any more"
    for module in changed:
        module.make_run_id = lambda *_: RUN_ID  # type: ignore[attr-defined]
