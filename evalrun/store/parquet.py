"""Rows to Parquet and back: typed, zstd, in row groups, streamed, committed whole.

Blocks of columns, or plain rows, enter and files leave that polars, DuckDB, pandas and pyarrow read without evalrun. No
more than a few blocks are in memory; a final name holds the old file or the whole new one, never a part.
"""

import hashlib
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson
import polars as pl
from polars.io.plugins import register_io_source

from evalrun.errors import SchemaMismatchError, StoreError
from evalrun.records import SCHEMA_VERSION
from evalrun.store.folder import RunFolder, StagedFile, make_temp_folder, stage_file
from evalrun.store.tables import ATTEMPTS, GRADES, RESULTS, Column

Row = Mapping[str, Any]
RowT = TypeVar("RowT")
Columns = Mapping[str, Sequence[Any] | pl.Series]
"""A block of a table's rows: values by the name of their column, all equally many."""

KEY_PREFIX = "evalrun."
SCHEMA_VERSION_KEY = KEY_PREFIX + "schema_version"
GRADES_DIGEST_KEY = KEY_PREFIX + "grades_digest"

BLOCK_ROWS = 500
"""Most rows turned into a frame at once."""

CHUNK_ROWS = 2_000
"""Most rows read back at once: each reading decodes a row group anew."""

CHUNK_BYTES = 16 * 1024 * 1024
"""About what they may take: rows of long texts come in smaller chunks."""

MAX_GROUP_ROWS = 20_000
"""Most rows in a row group."""

MIN_GROUP_ROWS = 100
"""Fewest, however long the texts are."""

GROUP_BYTES = 8 * 1024 * 1024
"""About what the rows of a row group take in memory: writers and readers hold some of them at once."""

_FIRST_READ_ROWS = 20

_PART_ROWS = 20_000
_DTYPES: Mapping[str, pl.DataType] = {
    "str": pl.String(),
    "i16": pl.Int16(),
    "i32": pl.Int32(),
    "i64": pl.Int64(),
    "f64": pl.Float64(),
    "bool": pl.Boolean(),
    "datetime": pl.Datetime("ms", "UTC"),
}


class Written(NamedTuple):
    """What `write_results` wrote."""

    n_results: int
    n_grades: int
    grades_digest: str


class GradedBlock(NamedTuple):
    """Some rows of results.parquet, and the rows of grades.parquet that belong to them."""

    results: Columns
    grades: Columns


def write_results(folder: RunFolder, blocks: Iterable[GradedBlock], metadata: Mapping[str, str]) -> Written:
    """Write results.parquet and grades.parquet in one pass; both appear at the end, grades first.

    Args:
        folder: The run.
        blocks: The planned rows, in plan order, with their grades. Pulled once.
        metadata: Facts for the files, e.g. {"run_id": …, "job_digest": …}; keys get the prefix `evalrun.`.

    Raises:
        StoreError: The disk refused, or a row does not fit its table; older files are as they were.
    """
    with (
        make_temp_folder(folder.path) as parts_dir,
        stage_file(folder.grades_path) as grades_file,
        stage_file(folder.results_path) as results_file,
    ):
        grades = _GradeParts(parts_dir)
        # The digest is known when the last row was pulled; polars asks for the metadata after that.
        late_facts = _LateFacts(metadata, grades)
        n_results = _sink(results_file, RESULTS, grades.divert(blocks), late_facts)
        _sink(grades_file, GRADES, grades.scan_frames(), late_facts)
        _check_rows(grades_file, grades.n_rows)
        results_file.flush()  # The two renames stand as close together as they can; `grades_match` finds a crash there.
        grades_file.commit()
        results_file.commit()
    return Written(n_results, grades.n_rows, grades.digest)


def write_attempts(folder: RunFolder, blocks: Iterable[Columns], metadata: Mapping[str, str] | None = None) -> int:
    """Write attempts.parquet; return the number of rows.

    Raises:
        StoreError: The disk refused, or a row does not fit; an older file is as it was.
    """
    return write_table(folder.attempts_path, ATTEMPTS, blocks, metadata or {})


def write_judgements(folder: RunFolder, blocks: Iterable[Columns], metadata: Mapping[str, str]) -> int:
    """Write judge.parquet, whose columns are those of the results; return the number of rows.

    Raises:
        StoreError: The disk refused, or a row does not fit; an older file is as it was.
    """
    return write_table(folder.judge_path, RESULTS, blocks, metadata)


def write_table(path: Path, columns: Sequence[Column], blocks: Iterable[Columns], metadata: Mapping[str, str]) -> int:
    """Write a table atomically; return the number of rows.

    Args:
        path: The final name.
        columns: The table; every block holds each of them.
        blocks: Its rows. Pulled once, in order.
        metadata: Facts for the file; keys get the prefix `evalrun.`.

    Raises:
        StoreError: The disk refused, or a row does not fit; an older file is as it was.
    """
    with stage_file(path) as staged:
        n_rows = _sink(staged, columns, (_make_frame(block, columns) for block in blocks), _LateFacts(metadata, None))
        staged.commit()
    return n_rows


def scan_rows(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    is_picked: pl.Series | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[dict[str, Any]]:
    """Stream the rows of a table back as dicts, in the file's order.

    Args:
        path: A Parquet file.
        columns: Names to read; None = all.
        is_picked: For each row of the file, whether it is wanted; None = all are.
        chunk_rows: Rows in memory at once, about.

    Raises:
        StoreError: The file is not there or not Parquet.
    """
    for frame in scan_frames(path, columns, is_picked=is_picked, chunk_rows=chunk_rows):
        yield from frame.iter_rows(named=True)


def scan_frames(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    is_picked: pl.Series | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[pl.DataFrame]:
    """Stream a table back in frames; arguments and errors are those of `scan_rows`."""
    try:
        frame = pl.scan_parquet(path, glob=False)
        n_rows = frame.select(pl.len()).collect().item()
        if columns is not None:
            frame = frame.select(columns)
        # Slice by slice: polars' own batches read row groups ahead, more of them the more cores there are.
        start, n_wanted = 0, min(_FIRST_READ_ROWS, chunk_rows)
        while start < n_rows:
            wanted = None if is_picked is None else is_picked.slice(start, n_wanted)
            if wanted is not None and not wanted.any():
                start += n_wanted
                continue
            batch = frame.slice(start, n_wanted).collect()
            yield batch if wanted is None else batch.filter(wanted)
            start += n_wanted
            row_bytes = max(batch.estimated_size() / batch.height, 1)
            n_wanted = min(max(int(CHUNK_BYTES / row_bytes), 1), 4 * n_wanted, chunk_rows)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _explain_unreadable(path, error) from error


def scan_table(path: Path) -> pl.LazyFrame:
    """Return a table as a lazy frame; a name with glob characters is a name."""
    return pl.scan_parquet(path, glob=False)


def make_lazy_frame(columns: Sequence[Column], make_rows: Callable[[], Iterable[Row]]) -> pl.LazyFrame:
    """Return a table that lies in no file: its rows are made anew each time that it is read.

    Args:
        columns: The table; every row holds each of them.
        make_rows: Returns the rows, in order; called once for each reading, in a thread of polars.
    """

    def pull(
        wanted: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:  # pragma: no cover - a thread of polars, not traced
        for block in make_blocks(islice(make_rows(), n_rows), columns):
            frame = _make_frame(block, columns)
            kept = frame if predicate is None else frame.filter(predicate)
            yield kept if wanted is None else kept.select(wanted)

    return register_io_source(pull, schema=make_polars_schema(columns))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the facts of a file, without the prefix `evalrun.`.

    Raises:
        StoreError: The file is not there or not Parquet.
        SchemaMismatchError: It is not one of evalrun's, or of another version.
    """
    try:
        found = pl.read_parquet_metadata(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _explain_unreadable(path, error) from error
    version = found.get(SCHEMA_VERSION_KEY)
    if version != SCHEMA_VERSION:
        said = "names no evalrun.schema_version" if version is None else f"has schema version {version}"
        msg = f"{path} {said}; this evalrun reads version {SCHEMA_VERSION}"
        raise SchemaMismatchError(msg)
    return {key.removeprefix(KEY_PREFIX): value for key, value in found.items() if key.startswith(KEY_PREFIX)}


def grades_match(folder: RunFolder) -> bool:
    """Tell whether `score` and `passed` in results come from the grades that lie beside them.

    False when one of the files is missing, names no digest, or names another one: a crash between two renames. Grading
    again mends it.
    """
    if not (folder.results_path.is_file() and folder.grades_path.is_file()):
        return False
    digests = {read_metadata(path).get("grades_digest") for path in (folder.results_path, folder.grades_path)}
    return len(digests) == 1 and None not in digests


class _GradeParts:
    """The grades of a pass over the results: kept in part files on disk until their digest is known.

    Args:
        parts_dir: A hidden folder for the parts.
    """

    def __init__(self, parts_dir: Path) -> None:
        self.n_rows = 0
        self._parts_dir = parts_dir
        self._n_parts = 0
        self._hash = hashlib.sha256()
        self._frames: list[pl.DataFrame] = []

    @property
    def digest(self) -> str:
        """Sha256 hex over the rows so far, in order, each as a JSON list."""
        return self._hash.hexdigest()

    def divert(self, blocks: Iterable[GradedBlock]) -> Iterator[pl.DataFrame]:
        """Pass the results on and keep their grades."""
        for results, grades in blocks:
            self._keep(_make_frame(grades, GRADES))
            yield _make_frame(results, RESULTS)

    def scan_frames(self) -> Iterator[pl.DataFrame]:
        """Yield all grades, in order."""
        for number in range(self._n_parts):
            yield pl.read_ipc(self._make_path(number))
        yield from self._frames

    def _keep(self, frame: pl.DataFrame) -> None:
        if not frame.height:
            return
        self.n_rows += frame.height
        # The rows without the list around them: how they were cut into blocks leaves no trace.
        self._hash.update(orjson.dumps(frame.rows())[1:-1] + b",")
        self._frames.append(frame)
        if sum(frame.height for frame in self._frames) >= _PART_ROWS:
            pl.concat(self._frames).write_ipc(self._make_path(self._n_parts), compression="lz4")
            self._n_parts += 1
            self._frames = []

    def _make_path(self, number: int) -> Path:
        return self._parts_dir / f"{number:06d}.arrow"


class _LateFacts:
    """Metadata that polars asks for when the last row was written."""

    def __init__(self, metadata: Mapping[str, str], grades: _GradeParts | None) -> None:
        self._facts = {KEY_PREFIX + key.removeprefix(KEY_PREFIX): value for key, value in metadata.items()}
        self._grades = grades

    def __call__(self, _context: object) -> dict[str, str]:
        facts = {**self._facts, SCHEMA_VERSION_KEY: SCHEMA_VERSION}
        if self._grades is not None:
            facts[GRADES_DIGEST_KEY] = self._grades.digest
        return facts


def _sink(staged: StagedFile, columns: Sequence[Column], frames: Iterable[pl.DataFrame], facts: _LateFacts) -> int:
    """Stream frames into the hidden file; return the number of rows, as the file itself tells it.

    Rows are made in the caller's thread, since graders and journal belong to it; polars encodes beside it.
    """
    belt = _FrameBelt()
    source = register_io_source(belt.pull, schema=make_polars_schema(columns))
    frames = iter(frames)
    first = next(frames, None)
    group_rows = _choose_group_rows(first)
    frames = frames if first is None else chain([first], frames)

    def write() -> None:
        source.sink_parquet(
            staged.temp_path, compression="zstd", compression_level=1, row_group_size=group_rows, metadata=facts
        )

    with ThreadPoolExecutor(1, thread_name_prefix="evalrun-parquet") as executor:
        writing = executor.submit(write)
        try:
            n_rows = belt.feed(frames, writing)
        except BaseException:
            belt.abort(writing)
            raise
        try:
            writing.result()
        except pl.exceptions.PolarsError as error:
            raise staged.explain(error) from error
    _check_rows(staged, n_rows)
    return n_rows


def _choose_group_rows(first: pl.DataFrame | None) -> int:
    """Return how many rows a row group gets when all are as long as the first ones."""
    if first is None:
        return MAX_GROUP_ROWS
    row_bytes = first.estimated_size() / first.height
    return min(max(int(GROUP_BYTES / max(row_bytes, 1)), MIN_GROUP_ROWS), MAX_GROUP_ROWS)


class _AbortedError(Exception):
    """Ends the writer when the rows end in an error; never leaves this module."""


class _FrameBelt:
    """Hands frames from the thread that makes them to the one that polars pulls from; a few at most lie on it."""

    def __init__(self) -> None:
        self._frames: queue.Queue[pl.DataFrame | _AbortedError | None] = queue.Queue(maxsize=2)

    def feed(self, frames: Iterable[pl.DataFrame], writing: Future[None]) -> int:
        """Put on all frames and the end mark; stop early when the writer ended. Return the number of rows."""
        n_rows = 0
        for frame in frames:
            n_rows += frame.height
            if not self._put(frame, writing):
                break
        self._put(None, writing)
        return n_rows

    def abort(self, writing: Future[None]) -> None:
        """Make the writer end without a result."""
        self._put(_AbortedError(), writing)
        wait([writing])

    def pull(self, *_hints: object) -> Iterator[pl.DataFrame]:  # pragma: no cover - a thread of polars, not traced
        """Yield what was put on; polars calls this."""
        while (item := self._frames.get()) is not None:
            if isinstance(item, _AbortedError):
                raise item
            yield item

    def _put(self, item: pl.DataFrame | _AbortedError | None, writing: Future[None]) -> bool:
        """Put an item on as soon as there is room; False when the writer ended and takes no more."""
        while not writing.done():
            try:
                self._frames.put(item, timeout=0.05)
            except queue.Full:
                continue
            return True
        return False


def _check_rows(staged: StagedFile, n_rows: int) -> None:
    """Read the file's own count back: a short file must never get the final name."""
    n_found = pl.scan_parquet(staged.temp_path, glob=False).select(pl.len()).collect().item()
    if n_found != n_rows:
        msg = f"cannot write {staged.path}: {n_rows} rows went in, the file holds {n_found}; check the disk"
        raise StoreError(msg)


def make_polars_schema(columns: Sequence[Column]) -> pl.Schema:
    """Return a table's columns as polars types."""
    return pl.Schema({column.name: _DTYPES[column.dtype] for column in columns})


def make_blocks(rows: Iterable[Row], columns: Sequence[Column]) -> Iterator[Columns]:
    """Yield plain rows as blocks that are small enough to be turned into a frame."""
    for chunk in split_rows(rows, _count_chars):
        yield _transpose(chunk, columns)


def make_graded_blocks(rows: Iterable[tuple[Row, Sequence[Row]]]) -> Iterator[GradedBlock]:
    """Yield plain rows of results, each with its grades, as such blocks."""
    for chunk in split_rows(rows, lambda pair: _count_chars(pair[0])):
        grades = [grade for _, grades in chunk for grade in grades]
        yield GradedBlock(_transpose([row for row, _ in chunk], RESULTS), _transpose(grades, GRADES))


def split_rows(rows: Iterable[RowT], count_bytes: Callable[[RowT], int]) -> Iterator[list[RowT]]:
    """Yield rows of any kind in lists, each of as many as may be in memory at once.

    Args:
        rows: Pulled when they are wanted.
        count_bytes: Returns what a row takes in memory, about.
    """
    chunk: list[RowT] = []
    n_bytes = 0
    for row in rows:
        chunk.append(row)
        n_bytes += count_bytes(row)
        if len(chunk) >= BLOCK_ROWS or n_bytes >= CHUNK_BYTES:
            yield chunk
            chunk, n_bytes = [], 0
    if chunk:
        yield chunk


def _count_chars(row: Row) -> int:
    return sum(len(value) for value in row.values() if type(value) is str)


def _transpose(rows: Sequence[Row], columns: Sequence[Column]) -> Columns:
    """Return rows as columns; one that a row lacks is left out, so that the writer refuses the block."""
    shared = set(rows[0]).intersection(*rows) if rows else {column.name for column in columns}
    return {column.name: [row[column.name] for row in rows] for column in columns if column.name in shared}


def _make_frame(block: Columns, columns: Sequence[Column]) -> pl.DataFrame:
    """Turn a block into a frame, column by column: no type is inferred, none is coerced.

    Raises:
        StoreError: A value does not fit its column, or a column that must hold a value holds none.
    """
    series = []
    for column in columns:
        try:
            made = pl.Series(column.name, block[column.name], dtype=_DTYPES[column.dtype], strict=True)
        except (KeyError, TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
            msg = f"column {column.name} ({column.dtype}) cannot hold a value of the rows: {error!r}; this is a defect "
            msg += "of evalrun, and the journal still holds everything"
            raise StoreError(msg) from error
        if not column.nullable and made.null_count():
            msg = f"column {column.name} may not be null, and is in {made.null_count()} rows; this is a defect of "
            msg += "evalrun, and the journal still holds everything"
            raise StoreError(msg)
        series.append(made)
    return pl.DataFrame(series)


def _explain_unreadable(path: Path, error: Exception) -> StoreError:
    if not path.exists():
        return StoreError(f"{path} is not there; `evalrun run --resume` on the run makes it from its journal")
    return StoreError(f"cannot read {path}: {error}; `evalrun run --resume` on the run makes it anew from its journal")
