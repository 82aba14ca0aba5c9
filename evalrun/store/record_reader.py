"""Records of a journal read back as plain fields, many at once, for the tables.

Places that the index knows, or a journal's folder, enter; the fields of each record leave, as JSON holds them: a key
that is absent is null. Text that UTF-8 cannot hold (lone surrogates) is replaced by its escape on the way.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalrun.store.journal_format import Kind, is_standard_json, parse_body, parse_frame
from evalrun.store.segment_files import Place, SegmentFiles, list_segments
from evalrun.store.segment_lines import scan_segment

Fields = Mapping[str, Any]
"""A record of the journal, or an object inside one: a key that is absent is null."""

IS_CLEANED = "is_cleaned"
"""Key of a record whose texts held lone surrogates."""

_MAX_GAP_BYTES = 64 * 1024
_MAX_RUN_BYTES = 1024 * 1024
_STARTED_HEAD = b'{"v":1,"t":"started"'


class RecordReader:
    """Reads `done` records by their place, many of them with one call to the system.

    Args:
        journal_dir: Folder of the segments.
    """

    def __init__(self, journal_dir: Path) -> None:
        self._files = SegmentFiles(journal_dir)

    def __enter__(self) -> "RecordReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def read(self, places: Mapping[str, Place]) -> dict[str, Fields]:
        """Return the records of rows, by row_id.

        Args:
            places: Where the record of each row lies.

        Raises:
            JournalDamagedError: A record on disk is no longer the one that was indexed.
        """
        found = {}
        for run in _join_neighbours(sorted((place, row_id) for row_id, place in places.items())):
            start, last = run[0][0].offset, run[-1][0]
            data = self._files.read(Place(last.segment, start, last.offset + last.n_bytes - start))
            for place, row_id in run:
                record = parse_record(data[place.offset - start : place.offset - start + place.n_bytes])
                if record is None or "status" not in record or record["row_id"] != row_id:
                    raise self._files.make_changed_error(place)
                found[row_id] = record
        return found


def scan_attempt_records(journal_dir: Path) -> Iterator[tuple[Fields, int]]:
    """Yield the record of every attempt of a run, failed and final ones, in the order they were written, and its size.

    A record is an `attempt`, or a `done` that holds its `last_attempt`.
    """
    for path in list_segments(journal_dir):
        for line in scan_segment(path, take=_is_lone_start):
            if line.frame is not None and line.frame.kind in {Kind.ATTEMPT, Kind.DONE}:
                record = _parse_clean(line.frame.body)
                if line.frame.kind is Kind.ATTEMPT or "last_attempt" in record:
                    yield record, len(line.data)


def parse_record(line: bytes) -> Fields | None:
    """Return the fields of a line; None when it does not prove itself."""
    frame = parse_frame(line)
    return None if frame is None else _parse_clean(frame.body)


def clean_text(text: str) -> str:
    """Return a text with its lone surrogates as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _is_lone_start(line: bytes, *, offset: int) -> bool:  # noqa: ARG001 - as `scan_segment` calls it
    """Tell whether a line begins a request and holds nothing else, whole or damaged: no attempt can be in it."""
    return line.startswith(_STARTED_HEAD) and line.find(b'{"v":', 1) < 0


def _join_neighbours(places: Sequence[tuple[Place, str]]) -> Iterator[list[tuple[Place, str]]]:
    """Yield sorted places in runs that are worth reading at once: neighbours, since little else lies between them."""
    run: list[tuple[Place, str]] = []
    end = 0
    for item in places:
        place = item[0]
        if run:
            first = run[0][0]
            is_near = place.segment == first.segment and place.offset - end <= _MAX_GAP_BYTES
            if not is_near or place.offset - first.offset > _MAX_RUN_BYTES:
                yield run
                run = []
        run.append(item)
        end = place.offset + place.n_bytes
    if run:
        yield run


def _parse_clean(body: bytes) -> Fields:
    fields = parse_body(body)
    if not is_standard_json(body):
        return fields  # orjson neither writes nor reads a lone surrogate.
    cleaned = _clean_fields(fields)
    # The attempt inside has rows of a table of its own, which hold no flags.
    is_same = all(cleaned[name] == value for name, value in fields.items() if name != "last_attempt")
    return cleaned if is_same else {**cleaned, IS_CLEANED: True}


def _clean_fields(fields: Fields) -> Fields:
    return {
        name: _clean_fields(value) if type(value) is dict else clean_text(value) if type(value) is str else value
        for name, value in fields.items()
    }
