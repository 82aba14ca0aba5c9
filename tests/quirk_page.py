"""Renders docs/quirks.md from the catalogue of quirks and the table that the tests hold evalrun to."""

from itertools import groupby

from evalrun.quirk_names import QUIRK_NAMES, QuirkName
from evalrun.records import Status, UsageSource
from tests.quirk_outcomes import OUTCOMES, Expected, Figures, Outcomes, count_figures

HEAD = """# Quirks, and what evalrun makes of them

Generated from `evalrun/quirk_names.py` and `tests/quirk_outcomes.py` by `python -m tests.generate`; do not edit.

Sixty ways in which servers that call themselves OpenAI-compatible misbehave, each with what evalrun makes of one such
reply. Each cell is a test: `tests/dispatch/test_quirk_outcomes.py` asks evalrun's simulator for the bent reply over
HTTP, and compares what is kept, word by word, with what the reply says.

You can ask for them too, with any client: start `evalrun simulate --port 8000`, send requests to
`http://127.0.0.1:8000/v1`, and name the quirk in the header `X-Simulator-Quirk`, as an id with a form (`Q25:rst`), an
id alone (`Q25`: the request decides on the form) or a name (`cut:rst`). Some take a number, last of all (`Q47:0.2`,
`Q37:seconds:5`). `--quirk Q25=0.1` lets one befall a tenth of all requests instead. More on the
[simulator's page](simulator.md#quirks).

The outcomes are meant to be right for any client: what is damaged is never an answer, what cannot pass is not asked
again, what a server asks for is granted, and what nobody tells is estimated and says so.

"""

WORDS = """## Words

| in a cell | means |
|---|---|
| **answer** | kept as what the model said; nothing is odd about it |
| **answer**, `flag` | kept, and the column `flags` of the results says what is odd |
| **empty**, **refused** | kept as what it is: the model said nothing, or refused |
| cost estimated | the reply does not tell its tokens: they are estimated, and `usage_source` says so |
| **again**: `code` | no answer: asked again, within the limits of `retry`; an error of that code if it never passes |
| may be billed | the server may have done the work: `maybe_billed` is true, and its cost is estimated |
| tells its tokens | the failed reply names them all the same: they are taken as reported, and nothing is estimated |
| lane waits | no row of that endpoint and model is sent before the wait is over |
| **error**: `code` | the row ends as an error at once, the others go on |
| **stop**: `code` | every row would meet it: the lane stops, its rows stay pending, a resume goes on with them |

"""


def render_quirks_markdown() -> str:
    """Return docs/quirks.md."""
    sections = [_render_quirk(quirk_id, quirk) for quirk_id, quirk in QUIRK_NAMES.items()]
    return HEAD + _render_figures(count_figures()) + WORDS + "\n".join(sections)


def _render_figures(figures: Figures) -> str:
    n_answers = figures.clean + figures.flagged + figures.named
    n_failures = figures.cells - n_answers
    return f"""## Figures

| | |
|---|---|
| quirks | {len(QUIRK_NAMES)}, in {figures.forms} forms |
| tried, streamed and not where both make sense | **{figures.cells}** |
| taken as complete | {n_answers}: {figures.clean} in full order, {figures.flagged} with a flag, {figures.named} \
as empty or refused |
| told apart as failures | {n_failures}: {figures.asked_again} asked again, {figures.failed} errors of the row, \
{figures.stopped} that stop the lane |
| damaged, and taken as complete without a word | **0** |

"""


def _render_quirk(quirk_id: str, quirk: QuirkName) -> str:
    forms = [(label.partition(":")[2], told) for label, told in OUTCOMES.items() if label.startswith(quirk_id)]
    number = f" Takes a number: {quirk.number}." if quirk.number is not None else ""
    return "\n".join([f"## {quirk_id} {quirk.name}", "", quirk.sentence + number, "", *_render_table(forms), ""])


def _render_table(forms: list[tuple[str, Outcomes]]) -> list[str]:
    """Return a table of the forms, those with the same outcomes in one line."""
    has_forms = bool(forms[0][0])
    head = ["form", "reply", "outcome", "why"][not has_forms :]
    lines = [_join(head), "|---" * len(head) + "|"]
    for rows, group in groupby(forms, key=lambda form: _render_rows(form[1])):
        names = ", ".join(f"`{name}`" for name, _ in group)
        lines += [_join([names, *row][not has_forms :]) for row in rows]
    return lines


def _render_rows(outcomes: Outcomes) -> list[list[str]]:
    """Return a row for each kind of reply; one for both where they come out alike."""
    plain, stream = outcomes
    cells = [("any", plain)] if plain == stream else [("not streamed", plain), ("streamed", stream)]
    return [[mode, _render_verdict(cell), cell.words] for mode, cell in cells if cell is not None]


def _join(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _render_verdict(cell: Expected) -> str:
    notes = [f"`{flag}`" for flag in cell.flags]
    if cell.is_answer:
        verdict = "**answer**" if cell.status is Status.OK else f"**{cell.status}**"
        notes += ["cost estimated"] if cell.cost == "estimated" else []
    else:
        word = "again" if cell.is_retried else "stop" if cell.lane == "stops" else "error"
        verdict = f"**{word}**: `{cell.error_code}`"
        notes += ["may be billed"] if cell.maybe_billed else []
        notes += ["tells its tokens"] if cell.usage is UsageSource.REPORTED else []
        notes += ["lane waits"] if cell.lane == "waits" else []
    return ", ".join([verdict, *notes])
