"""Cells of CSV that a spreadsheet shows and does not run."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\0")


def escape_formula(cell: str) -> str:
    """Return a CSV cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if not cell.startswith(_FORMULA_STARTS):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell
