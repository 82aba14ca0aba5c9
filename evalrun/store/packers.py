"""How a record becomes a dict without nulls: a function made from the names of its fields, once, when imported.

Names enter, a function leaves that is what one would write by hand: one `if` for each field. A journal line is made
of four such dicts; to fill them with nulls first, and to drop those then, took three times as long.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any


def make_packer(
    names: Sequence[str], *, as_text: Collection[str] = (), if_true: Collection[str] = ()
) -> Callable[[Any, dict[str, Any]], None]:
    """Return a function that puts those fields of a record that are not None into a dict, in the order of the names.

    Args:
        names: The fields.
        as_text: Those of them that are written as text: amounts of money, which JSON's numbers would round.
        if_true: Those of them that are left out when they are false or empty, too.
    """
    lines = ["def pack(record, fields):"]
    for name in names:
        is_wanted = "" if name in if_true else " is not None"
        value = "str(value)" if name in as_text else "value"
        lines += [f"    if (value := record.{name}){is_wanted}:", f"        fields[{name!r}] = {value}"]
    known: dict[str, Any] = {}
    exec("\n".join(lines), known)  # noqa: S102 - only names of fields, written in our own modules, go in
    pack: Callable[[Any, dict[str, Any]], None] = known["pack"]
    return pack
