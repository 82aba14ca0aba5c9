"""The time of a run is that of all its calls; what is unknown makes it a lower bound, never a zero."""

from typing import Any

import pytest

from evalrun.wall_time import read_wall_time


@pytest.mark.parametrize(
    ("manifest", "seconds", "n_unknown"),
    [
        ({"n_calls": 1, "wall_s": 2.5}, 2.5, 0),
        ({"n_calls": 3, "wall_s": 2, "earlier_calls": [{"wall_s": 3.5}, {"wall_s": 1.0}]}, 6.5, 0),
        ({"n_calls": 3, "wall_s": 2, "earlier_calls": [{"wall_s": None}, {"wall_s": 1.0}]}, 3.0, 1),
        ({"n_calls": 2, "wall_s": 2}, 2.0, 1),
        ({"n_calls": 300, "wall_s": 2, "earlier_calls": [{"wall_s": 1.0}]}, 3.0, 298),
        ({}, None, 1),
        ({"n_calls": "x", "wall_s": True, "earlier_calls": "x"}, None, 1),
        ({"n_calls": True, "wall_s": float("nan"), "earlier_calls": ["x", {"wall_s": -1}]}, None, 2),
    ],
)
def test_wall_time_is_that_of_all_calls(manifest: dict[str, Any], seconds: float | None, n_unknown: int) -> None:
    """Known times are added up, the unknown ones counted, and what somebody has edited is unknown."""
    assert read_wall_time(manifest) == (seconds, n_unknown)
