"""Keys of the contract that a later version brings: accepted where they do nothing, refused where they would act."""

from collections.abc import Callable, Mapping
from typing import Any

from evalrun.errors import Problem
from evalrun.job.places import KeyPath, name_path

NOT_YET: Mapping[KeyPath, tuple[tuple[Any, ...], str]] = {
    ("gate", "baseline"): ((None,), "comparison with a baseline"),
    ("gate", "mode"): ((None, "regression"), "a test for noninferiority"),
    ("gate", "margin"): ((None,), "a test for noninferiority"),
    ("gate", "alpha"): ((None, 0.05), "comparison with a baseline"),
    ("gate", "min_drop"): ((None, 0), "comparison with a baseline"),
    ("gate", "metrics"): ((None, []), "a gate on named metrics"),
    ("gate", "cluster"): ((None,), "clustered samples"),
    ("gate", "per_sample"): ((None,), "a rule over repeats"),
    ("gate", "max_missing"): ((None, 0.01), "comparison with a baseline"),
    ("gate", "max_cost_increase"): ((None,), "comparison with a baseline"),
    ("gate", "require_mde"): ((None,), "comparison with a baseline"),
    ("report", "baseline_model"): ((None,), "comparison within a report"),
}
"""Key path → values that do nothing, and what the key is for."""


def drop_not_yet(tree: dict[str, Any], where: Callable[[KeyPath], str]) -> list[Problem]:
    """Take the keys of later versions out of the tree; return those that would have acted.

    Args:
        tree: The job; changed in place.
        where: Gives the place of a key path.
    """
    problems: list[Problem] = []
    for pattern, (idle_values, purpose) in NOT_YET.items():
        for path, parent in _match(tree, pattern):
            value = parent.pop(pattern[-1])
            if not any(_equals(value, idle) for idle in idle_values):
                message = f"`{name_path(path)}` is not in this version yet ({purpose})"
                problems.append(Problem(message=message, where=where(path), hint="leave the key out"))
    return problems


def _match(tree: Any, pattern: KeyPath) -> list[tuple[KeyPath, dict[Any, Any]]]:
    """Return each place that a pattern with `*` names, with the mapping that holds its last key."""
    found: list[tuple[KeyPath, Any]] = [((), tree)]
    for key in pattern[:-1]:
        found = [step for path, node in found for step in _descend(path, node, key)]
    last = pattern[-1]
    return [((*path, last), node) for path, node in found if isinstance(node, dict) and last in node]


def _descend(path: KeyPath, node: Any, key: str | int) -> list[tuple[KeyPath, Any]]:
    if key != "*":
        return [((*path, key), node[key])] if isinstance(node, dict) and key in node else []
    if isinstance(node, dict):
        return [((*path, name), item) for name, item in node.items()]
    return [((*path, index), item) for index, item in enumerate(node)] if isinstance(node, list) else []


def _equals(value: Any, idle: Any) -> bool:
    return bool(value == idle) and isinstance(value, bool) == isinstance(idle, bool)
