"""`evalrun plan --explain`: what an older run makes of a row, in words or as JSON."""

from typing import TYPE_CHECKING, Any

from evalrun.cli.console import clean_text, open_console, print_json
from evalrun.job.differences import MISSING, describe_difference
from evalrun.records import SCHEMA_VERSION
from evalrun.row_explanation import RowExplanation, explain_rows

if TYPE_CHECKING:
    from evalrun.preparing import Prepared

EXPLAIN_HELP = """Say what an older run makes of ROW, and in what its request differs. ROW is
SAMPLE[/PROMPT/MODEL/REPEAT] or the start of a row_id; the older run is that of --reuse, else the job's newest."""


def print_explanation(prepared: "Prepared", row: str, *, as_json: bool) -> None:
    """Print what older runs make of a row.

    Args:
        prepared: The job.
        row: The words for a row.
        as_json: Print one JSON object instead of text.
    """
    explained = explain_rows(prepared, row)
    if as_json:
        rows = [_to_json(each) for each in explained]
        print_json({"schema_version": SCHEMA_VERSION, "job": prepared.loaded.name, "rows": rows})
        return
    console = open_console()
    for each in explained:
        name = f"{each.sample_id} · {each.prompt} · {each.model} · repeat {each.repeat} · row {each.row_id[:12]}"
        console.print(clean_text(name), soft_wrap=True)
        console.print(clean_text(f"  {each.verdict.replace('_', ' ')}: {each.why}"), soft_wrap=True)
        for difference in each.differences:
            console.print(clean_text(f"    {describe_difference(difference)}"), soft_wrap=True)


def _to_json(explanation: RowExplanation) -> dict[str, Any]:
    """Return an explanation as JSON values; a side that lacks the value lacks the key, since null is a value too."""
    return {
        "row_id": explanation.row_id,
        "sample_id": explanation.sample_id,
        "prompt": explanation.prompt,
        "model": explanation.model,
        "repeat": explanation.repeat,
        "verdict": explanation.verdict,
        "why": explanation.why,
        "run_id": explanation.run_id,
        "differences": [
            {
                "path": difference.path,
                **({} if difference.before is MISSING else {"before": difference.before}),
                **({} if difference.after is MISSING else {"after": difference.after}),
            }
            for difference in explanation.differences
        ],
    }
