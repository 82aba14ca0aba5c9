"""What a request may cost: the counts that were seen, and how far above them a change may go.

`python -m tests.footprint` prints the present counts, to paste here after a change that makes them smaller, or larger
for a good reason. A count that is not listed was not seen at all.
"""

from typing import Final, NamedTuple


class Seen(NamedTuple):
    """A count, and what it is made of."""

    n: float
    reason: str


PYTHON: Final = (3, 11)
"""The Python whose steps were counted; others take other steps for the same code."""

TOLERANCE: Final = 1.10
"""A count may rise by a tenth: no two systems have quite the same libraries."""

SLACK: Final = {"steps": 5.0, "alive": 600.0, "calls": 0.3, "modules": 5.0}
"""And by so much, whatever it was: it covers the noise of small counts, by kind."""

SEEN: Final = {
    "checking/all": Seen(340.12, "steps for a row before the first request: read it, try its prompts, guess tokens"),
    "checking/analysis": Seen(33, "graders that look at the sample"),
    "checking/hall": Seen(115, "templates, tokens of the texts"),
    "checking/job": Seen(182.2, "reading, messages"),
    "checking/libraries": Seen(9.92, "JSON, dataclasses"),
    "asking/all": Seen(1887.09, "steps for a request: build, send, read, price, two lines of journal"),
    "asking/dispatch": Seen(1111.11, "lane, exchange, wire, usage, outcome"),
    "asking/hall": Seen(70.66, "what is left to ask, its tokens in buckets, and their cost"),
    "asking/job": Seen(205, "the row again, its messages and its body"),
    "asking/libraries": Seen(284.32, "anyio, asyncio, tenacity, dataclasses"),
    "asking/store": Seen(231.05, "Started and Outcome as JSON, the index"),
    "closing/all": Seen(2004.84, "steps for a row after the last request: read back, grade, tables, reports"),
    "closing/analysis": Seen(152, "grading"),
    "closing/hall": Seen(97, "templates of graders, rows of the report"),
    "closing/job": Seen(205, "the row once more, for its columns"),
    "closing/libraries": Seen(299.12, "JSON, polars' Python, dataclasses, escaping"),
    "closing/report": Seen(887.67, "rows as objects, payload, JUnit"),
    "closing/store": Seen(364.05, "journal lines as outcomes, rows of tables"),
    "alive/objects": Seen(0, "for a thousand requests: nothing is kept but flat tables"),
    "alive/blocks": Seen(100, "for a thousand requests, blocks of memory: the index grows by slots"),
    "calls/file writes": Seen(2.02, "system calls for a request: one write for its start, one for its end"),
    "calls/network": Seen(2, "one to send, one to receive"),
    "calls/other files": Seen(0.29, "the journal is read back, row by row; tables are read for the reports"),
    "modules/help": Seen(87, "click, and the front door"),
    "modules/version": Seen(77, "the same, without the page of help"),
    "modules/run": Seen(510, "all that is loaded before the first request of a run"),
}
"""Each count with what it is made of: `STAGE/PART` steps per row (`all` is their sum, `hall` the ground floor as well),
`alive/…` per thousand requests, `calls/…` system calls per row, `modules/…` beyond a bare interpreter's."""

_NEEDED_LATE: Final = frozenset(
    {
        "evalrun.closing",
        "evalrun.report",
        "evalrun.simulator",
        "jsonschema",
        "numpy",
        "pandas",
        "polars",
        "pyarrow",
        "pygments",
        "rich",
        "scipy",
    }
)
"""What a run that waits for its first replies has not needed yet, or never needs."""

_UNUSED_BY_HELP: Final = _NEEDED_LATE | {
    "anyio",
    "asyncio",
    "evalrun.records",
    "httpx",
    "jinja2",
    "json",
    "orjson",
    "pathlib",
    "pydantic",
    "ruamel.yaml",
    "tempfile",
}

HEAVY: Final = {
    "help": _UNUSED_BY_HELP,
    "version": _UNUSED_BY_HELP,
    "run": _NEEDED_LATE,
}
"""Modules that must not be loaded, by what is started."""
