"""Dataset files and rows: types kept, faults named with file and line, ids unique, memory bounded."""

import base64
import gzip
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pyarrow.parquet.encryption as encryption  # type: ignore[import-untyped]
import pytest
from backports import zstd

from evalrun.errors import AuthorError, DatasetError
from evalrun.job import text_source
from evalrun.job.dataset import scan_samples
from evalrun.job.sample_ids import HashSet
from evalrun.records import Sample
from tests.job.conftest import BODY, load, write_rows


class _PlainKeys(encryption.KmsClient):  # type: ignore[misc]  # pyarrow has no types.
    """Keys that are wrapped by being encoded: enough to make an encrypted file."""

    def wrap_key(self, key: bytes, _name: str) -> bytes:
        """Return the key as text."""
        return base64.b64encode(key)


def scan(dataset: str, **options: Any) -> list[Sample]:
    """Return the samples of a job on one dataset."""
    return list(scan_samples(load(BODY + f"dataset: {dataset}\n"), **options))


def scan_bytes(name: str, content: bytes) -> list[Sample]:
    """Return the samples of a dataset file with this content."""
    Path(name).write_bytes(content)
    return scan(name)


def refuse(call: Callable[[], object]) -> str:
    """Return the text of the error that a scan must raise."""
    with pytest.raises(AuthorError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,a\n1,x\n2,y,z\n", "d.csv:3: the row has 3 fields, more than the 2 columns"),
        (b"id,a\n1,x\n2\n", "d.csv:3: the row has 1 fields, fewer than the 2 columns"),
        (b'id,a\n1,"x\n2,y\n', "d.csv:2: not valid CSV: unexpected end of data"),
        (b'id,a\n1,"x" y\n', "d.csv:2: not valid CSV: ',' expected after '\"'"),
        (b"id,a,a\n1,x,y\n", "d.csv:1: the header names the column 'a' twice"),
        (b"id,\n1,x\n", "d.csv:1: column 2 of the header has no name"),
        (b'id,a\n1,"two\nlines"\n2\n', "d.csv:4: the row has 1 fields"),
    ],
)
def test_d1_ragged_or_broken_csv_is_refused_with_its_line(content: bytes, message: str) -> None:
    """Neither a long nor a short row is mended in silence."""
    assert refuse(lambda: scan_bytes("d.csv", content)).startswith(message)


def test_d2_csv_values_stay_text() -> None:
    """`007` stays `007`, as an id and as a value."""
    samples = scan_bytes("d.csv", b"id,n,flag\r\n007,010,true\r\n7,,null\r\n")
    assert [(sample.sample_id, dict(sample.row)) for sample in samples] == [
        ("007", {"id": "007", "n": "010", "flag": "true"}),
        ("7", {"id": "7", "n": "", "flag": "null"}),
    ]


def test_d2_csv_without_header_takes_its_columns_from_the_job() -> None:
    """`columns` names the columns of a headerless TSV; the first line is data."""
    Path("d.tsv").write_bytes(b'2+2?\t4\n"say ""hi"""\thi\n')
    samples = scan("{path: d.tsv, columns: [question, answer]}")
    assert [dict(sample.row) for sample in samples] == [
        {"question": "2+2?", "answer": "4"},
        {"question": 'say "hi"', "answer": "hi"},
    ]


def test_d3_types_may_differ_from_row_to_row() -> None:
    """Nothing is inferred from the first rows: each value keeps its own type."""
    rows = [{"id": str(n), "v": n} for n in range(300)] + [{"id": "x", "v": "text"}, {"id": "y", "v": [1, None, 2.5]}]
    write_rows("d.jsonl", rows)
    assert [dict(sample.row) for sample in scan("d.jsonl")] == rows


def test_d4_keys_that_come_late_are_kept() -> None:
    """A column first seen after many rows is not dropped."""
    write_rows("d.jsonl", [{"id": str(n)} for n in range(200)] + [{"id": "x", "late": 1}])
    assert scan("d.jsonl")[-1].row["late"] == 1


def test_d4_duplicate_key_is_refused_with_its_line() -> None:
    """Of two equal keys neither wins."""
    content = b'{"id": "a"}\n{"id": "b", "q": {"x": 1, "x": 2}}\n'
    assert refuse(lambda: scan_bytes("d.jsonl", content)) == "d.jsonl:2: the key 'x' stands twice in one object"


def test_d5_blank_lines_bom_and_crlf_are_accepted() -> None:
    """What editors add is no error; only LF ends a line."""
    content = '\ufeff{"id": "a", "q": "x\u2028y"}\r\n\r\n  \n{"id": "b", "q": ""}'.encode()
    samples = scan_bytes("d.jsonl", content)
    assert [(sample.sample_id, sample.row["q"], sample.where) for sample in samples] == [
        ("a", "x\u2028y", "d.jsonl:1"),
        ("b", "", "d.jsonl:4"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "d.jsonl",
            b'{"id": "a"}\n{"id": "b',
            "d.jsonl:2: not valid JSON: Unterminated string starting at at column 8",
        ),
        ("d.jsonl", b'{"id": "a"}\n{"id": "caf\xe9"}\n', "d.jsonl:2: byte 0xe9 at column 12 is not UTF-8"),
        ("d.jsonl", '{"id": "a"}\n'.encode("utf-16"), "d.jsonl:1: the file is UTF-16"),
        ("d.jsonl", '{"id": "a"}\n'.encode("utf-16-le"), "d.jsonl:1: the file is UTF-16"),
        ("d.jsonl", b'{"id": "a"}\n[1]\n', "d.jsonl:2: a row must be an object {…}, got a list"),
        ("d.jsonl", b"{'id': 'a'}\n", "d.jsonl:1: not valid JSON: "),
        ("d.jsonl", b"[" * 100_000 + b"\n", "d.jsonl:1: the row is nested too deeply"),
        ("d.csv", b"id,a\n1,caf\xe9\n", "d.csv:2: byte 0xe9 at column 6 is not UTF-8"),
        ("d.json", b'[{"id": "a"},\n {"id": "b"},\n]', "d.json:2: not valid JSON: `,` and another row, or `]`"),
        ("d.json", b'[{"id": "a"},\n {"id": }]', "d.json:2: not valid JSON: "),
        ("d.json", b'[{"id": "a"},\n 5]', "d.json:2: a row must be an object"),
        ("d.json", b'{"rows": []}', "d.json:1: a .json dataset must be a list of rows"),
        ("d.json", b'[{"id": "a"}', "d.json:1: not valid JSON: "),
        ("d.txt", b"x\n", "d.txt: the file's suffix names no format that is read"),
    ],
)
def test_d5_broken_text_is_refused_with_its_line(name: str, content: bytes, message: str) -> None:
    """Truncated, wrongly encoded or malformed files are errors with file and line."""
    assert refuse(lambda: scan_bytes(name, content)).startswith(message)


def test_d5_line_over_the_cap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that would fill the memory is stopped at the cap."""
    monkeypatch.setattr(text_source, "MAX_LINE_BYTES", 100)
    content = b'{"id": "a"}\n{"id": "' + b"x" * 200 + b'"}\n'
    assert refuse(lambda: scan_bytes("d.jsonl", content)).startswith("d.jsonl:2: the line is longer than 100 bytes")


def test_d6_parquet_values_become_json_values() -> None:
    """Each type of a Parquet column has a defined JSON form."""
    frame = pl.DataFrame(
        {
            "id": ["a"],
            "n": [2**60],
            "day": [date(2026, 11, 22)],
            "at": [datetime(2026, 11, 22, 15, 30)],  # noqa: DTZ001 - a column without a zone
            "price": [Decimal("1.10")],
            "list": [[1, None]],
            "struct": [{"x": 1.5, "y": "z"}],
            "kind": ["c"],
            "took": [timedelta(seconds=1.5)],
            "none": [None],
        },
        schema_overrides={"kind": pl.Categorical},
    )
    frame.write_parquet("d.parquet")
    (sample,) = scan("d.parquet")
    assert sample.where == "d.parquet:1"
    assert orjson.loads(orjson.dumps(sample.row)) == {
        "id": "a",
        "n": 2**60,
        "day": "2026-11-22",
        "at": "2026-11-22T15:30:00",
        "price": "1.10",
        "list": [1, None],
        "struct": {"x": 1.5, "y": "z"},
        "kind": "c",
        "took": 1.5,
        "none": None,
    }


def test_d6_unreadable_parquet_is_refused() -> None:
    """A cut, empty or foreign file, bytes and NaN are clear errors."""
    pl.DataFrame({"id": ["a"] * 1000}).write_parquet("whole.parquet")
    whole = Path("whole.parquet").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PAR1PAR1", b"id,a\n1,2\n"):
        assert refuse(lambda content=content: scan_bytes("d.parquet", content)).startswith(  # type: ignore[misc]
            "d.parquet: not a readable Parquet file: "
        )
    pl.DataFrame({"id": ["a", "b"], "x": [1.0, float("nan")]}).write_parquet("d.parquet")
    assert refuse(lambda: scan("d.parquet")).startswith("d.parquet:2: column 'x' holds nan")
    pl.DataFrame({"id": ["a"], "x": [b"\xff"]}).write_parquet("d.parquet")
    assert refuse(lambda: scan("d.parquet")).startswith("d.parquet:1: column 'x' holds bytes")


def test_d6_encrypted_parquet_is_refused() -> None:
    """A file whose columns or whose footer are encrypted is a clear error."""
    table = pa.table({"id": ["a"], "q": ["secret"]})
    factory = encryption.CryptoFactory(lambda _config: _PlainKeys())
    for has_plain_footer in (True, False):
        options = encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"k": ["id", "q"]}, plaintext_footer=has_plain_footer
        )
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), options)
        with pq.ParquetWriter("d.parquet", table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)
        assert "encrypted" in refuse(lambda: scan("d.parquet"))


@pytest.mark.parametrize("group_rows", [7, 100_000])
def test_d13_parquet_is_read_in_slices_of_any_size(group_rows: int) -> None:
    """Rows come in order and with their numbers, however the writer grouped them and however long they are."""
    texts = [f"{number} " + "x" * (20_000 if number > 1500 else 3) for number in range(2_000)]
    pl.DataFrame({"id": [str(n) for n in range(2_000)], "q": texts}).write_parquet(
        "d.parquet", row_group_size=group_rows
    )
    samples = scan("d.parquet")
    assert [sample.row["q"] for sample in samples] == texts
    assert [sample.where for sample in samples] == [f"d.parquet:{n + 1}" for n in range(2_000)]


def test_d11_duplicate_id_names_both_lines() -> None:
    """An id that is given twice is refused, whether the rows are equal or not, over all files and the job."""
    write_rows("d.jsonl", [{"id": "a", "q": 1}, {"id": "b"}, {"id": "a", "q": 2}])
    message = "the sample id 'a' is given twice; first at d.jsonl:1\n    ids must be unique over all files of the job"
    assert refuse(lambda: scan("d.jsonl")) == f"d.jsonl:3: {message}"
    write_rows("d.jsonl", [{"id": "a"}])
    text = BODY + "dataset: d.jsonl\nsamples:\n- {id: a}\n"
    assert refuse(lambda: list(scan_samples(load(text)))) == f"job.yaml:6:3: {message}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "the id is empty"),
        ("  ", "the id is empty"),
        (None, "an id must be text or a number, got null"),
        ([1], "an id must be text or a number, got a list"),
        ("a\nb", "the id 'a\\nb' holds a control character"),
        ("a\x00", "the id 'a\\x00' holds a control character"),
        ("x" * 10_000, "is longer than 1024 bytes"),
    ],
)
def test_d11_unusable_id_is_refused(value: object, message: str) -> None:
    """An id that is empty, huge or holds control characters is an error with its line."""
    write_rows("d.jsonl", [{"id": "fine"}, {"id": value}])
    error = refuse(lambda: scan("d.jsonl"))
    assert error.startswith("d.jsonl:2: column `id`: ")
    assert message in error


def test_d11_ids_with_slashes_are_only_text() -> None:
    """An id that looks like a path is an id like any other; numbers become their JSON text."""
    write_rows("d.jsonl", [{"id": value} for value in ("../x", "a/b", 7, 1.5, True, "7 ")])
    assert [sample.sample_id for sample in scan("d.jsonl")] == ["../x", "a/b", "7", "1.5", "true", "7 "]


def test_d11_rows_without_ids_get_digests_and_equal_rows_numbers() -> None:
    """The id of a row is a digest of its content, whatever the order of its keys; equal rows are told apart."""
    Path("d.jsonl").write_text('{"q": 1, "a": 2}\n{"a": 2, "q": 1}\n{"q": 3}\n{"q": 1, "a": 2}\n')
    ids = [sample.sample_id for sample in scan("d.jsonl")]
    assert ids == ["3b7fa761f9a1ffae", "3b7fa761f9a1ffae-2", ids[2], "3b7fa761f9a1ffae-3"]
    assert len(ids[2]) == 16


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_d12_empty_file_gives_no_samples(content: bytes) -> None:
    """An empty file is read as what it is; the plan refuses it."""
    assert scan_bytes("d.jsonl", content) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_d15_non_finite_numbers_are_refused(number: str) -> None:
    """What JSON cannot hold is an error with its line."""
    error = refuse(lambda: scan_bytes("d.jsonl", f'{{"id": "a"}}\n{{"id": "b", "x": {number}}}\n'.encode()))
    assert error.startswith(f"d.jsonl:2: {'the number ' if number == '1e400' else ''}{number} is ")


def test_d15_huge_integers_and_surrogates_are_kept_exactly() -> None:
    """An integer of 25 digits is not rounded; half a surrogate pair is carried as it is."""
    (sample,) = scan_bytes("d.jsonl", b'{"id": "a", "n": 1234567890123456789012345, "s": "\\ud800"}\n')
    assert (sample.row["n"], sample.row["s"]) == (1234567890123456789012345, "\ud800")


@pytest.mark.parametrize("name", ["sample_id", "repeat", "vars"])
def test_dataset_reserved_column_is_refused(name: str) -> None:
    """A column may not hide what templates see under its name."""
    write_rows("d.jsonl", [{"id": "a", name: 1}])
    assert refuse(lambda: scan("d.jsonl")).startswith(f"d.jsonl:1: a column may not be named `{name}`")


def test_dataset_compressed_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """.gz and .zst are decompressed; a damaged one and a bomb are errors."""
    line = b'{"x": "a"}\n'
    assert len(scan_bytes("d.jsonl.gz", gzip.compress(line))) == 1
    assert len(scan_bytes("d.csv.zst", zstd.compress(b"id\na\nb\n"))) == 2
    cut = "the compressed file is damaged or cut off"
    assert cut in refuse(lambda: scan_bytes("d.jsonl.gz", gzip.compress(line * 1000)[:-20]))
    assert cut in refuse(lambda: scan_bytes("d.jsonl.zst", zstd.compress(line * 1000)[:-20]))
    assert cut in refuse(lambda: scan_bytes("d.jsonl.zst", line))
    monkeypatch.setattr(text_source, "FREE_EXPANSION_BYTES", 10_000)
    bomb = gzip.compress(b"\n" * 1_000_000)
    assert "expands to more than 200 times its size" in refuse(lambda: scan_bytes("d.jsonl.gz", bomb))


def test_dataset_folder_glob_and_list_are_read_in_order() -> None:
    """Files of a folder or glob come sorted, those of a list as named."""
    Path("data").mkdir()
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl"):
        write_rows(f"data/{name}", [{"id": name}])
    Path("data/notes.md").write_text("x")
    assert [sample.sample_id for sample in scan("data")] == ["a.jsonl", "b.jsonl"]
    assert [sample.sample_id for sample in scan('"data/[a-c].jsonl"')] == ["a.jsonl", "b.jsonl"]
    assert [sample.sample_id for sample in scan("[data/b.jsonl, data/a.jsonl]")] == ["b.jsonl", "a.jsonl"]


def test_dataset_path_that_leads_nowhere_is_refused_with_its_place() -> None:
    """A missing file gets the nearest name; an empty folder and a glob without matches are errors."""
    write_rows("gsm.jsonl", [])
    Path("empty").mkdir()
    message = "job.yaml:4:1: there is no dataset file gms.jsonl\n    did you mean `gsm.jsonl`?"
    assert refuse(lambda: scan("gms.jsonl")) == message
    assert refuse(lambda: scan("{path: empty}")) == "job.yaml:4:11: the folder empty holds no dataset file"
    assert refuse(lambda: scan("'*.csv'")) == "job.yaml:4:1: no dataset file matches *.csv"


def test_dataset_options_choose_rows_in_order() -> None:
    """`where`, then `limit`, then `sample`; the draw is reproducible and in dataset order."""
    write_rows("d.jsonl", [{"id": f"{n:03}", "n": n, "kind": "even" if n % 2 == 0 else "odd"} for n in range(200)])
    options = "{path: d.jsonl, where: \"kind == 'odd'\", limit: 50, sample: 10, seed: 3, category: kind}"
    samples = scan(options)
    assert len(samples) == 10
    assert [sample.sample_id for sample in samples] == sorted(sample.sample_id for sample in samples)
    assert {sample.category for sample in samples} == {"odd"}
    assert max(sample.row["n"] for sample in samples) < 100
    assert scan(options) == samples
    assert scan(options.replace("seed: 3", "seed: 4")) != samples
    assert [sample.sample_id for sample in scan("d.jsonl", where="n > 5", limit=2)] == ["006", "007"]


def test_dataset_where_that_fails_names_the_row() -> None:
    """An expression that does not fit a row is told with that row."""
    write_rows("d.jsonl", [{"id": "a", "n": 1}, {"id": "b"}])
    error = refuse(lambda: scan("d.jsonl", where="n > 0"))
    assert error.startswith("d.jsonl:2: 'n' is undefined in the expression 'n > 0' (--where)")


def test_dataset_named_columns_must_be_there() -> None:
    """A wrong column name is an error, not a missing category."""
    write_rows("d.jsonl", [{"id": "a", "topic": 5}])
    assert scan("{path: d.jsonl, category: topic}")[0].category == "5"
    expected = "d.jsonl:1: the row has no column `kind`, named as its category; it has: id, topic"
    assert refuse(lambda: scan("{path: d.jsonl, category: kind}")) == expected
    assert "no column `key`, named as its id" in refuse(lambda: scan("{path: d.jsonl, id: key}"))


def test_dataset_params_column_sets_parameters() -> None:
    """A row may set parameters of its request, but not what it asks of whom."""
    write_rows("d.jsonl", [{"id": "a", "p": {"seed": 1}}, {"id": "b", "p": None}, {"id": "c", "p": '{"n": 2}'}])
    samples = scan("{path: d.jsonl, params_column: p}")
    assert [sample.params for sample in samples] == [{"seed": 1}, None, {"n": 2}]
    for name in ("model", "messages", "stream"):
        write_rows("d.jsonl", [{"id": "a", "p": {name: 1}}])
        error = refuse(lambda: scan("{path: d.jsonl, params_column: p}"))
        assert error == f"d.jsonl:1: column `p` may not set `{name}`"


@pytest.mark.parametrize("cell", ['{"n": NaN}', '{"n": 1, "n": 2}', '{"n": 1', "[" * 100_000])
def test_dataset_cell_that_is_not_strict_json_is_refused(cell: str) -> None:
    """JSON text in a cell is read as strictly as the rows themselves."""
    write_rows("d.jsonl", [{"id": "a", "p": cell}])
    error = refuse(lambda: scan("{path: d.jsonl, params_column: p}"))
    assert error.startswith("d.jsonl:1: column `p` is not valid JSON: ")


def test_dataset_row_graders_are_validated_and_kept() -> None:
    """Graders of a row come with its sample, from JSON and from a CSV cell."""
    grader = {"type": "contains", "value": "4"}
    write_rows("d.jsonl", [{"id": "a", "graders": [grader]}])
    Path("d.csv").write_text('id,graders\nb,"[{""type"": ""contains"", ""value"": ""4""}]"\nc,\n')
    assert [sample.graders for sample in scan("[d.jsonl, d.csv]")] == [(grader,), (grader,), ()]


@pytest.mark.parametrize(
    ("grader", "message"),
    [
        ({"type": "exact", "expected": "{{ answer }}"}, "`graders[0]` holds a template"),
        ({"type": "json", "expected": {"a": ["{% x %}"]}}, "`graders[0]` holds a template"),
        ({"type": "json-schema", "file": "/etc/passwd"}, "`graders[0]` names a file"),
        ({"type": "contains", "value": "x", "when": "true"}, "`graders[0]` holds an expression (`when`)"),
        ({"type": "python", "file": "x.py"}, "`graders[0]` runs code"),
        ({"type": "judge", "model": "m", "rubric": "r"}, "`graders[0]` asks a judge"),
        ({"type": "contians", "value": "x"}, "unknown grader type 'contians'\n    did you mean `contains`?"),
        ({"type": "contains", "valu": "x"}, "`value` is missing"),
        ("contains", "`graders[0]` must be a mapping, got text 'contains'"),
    ],
)
def test_dataset_row_grader_that_is_code_or_wrong_is_refused(grader: object, message: str) -> None:
    """A dataset file holds literal graders only, and each is checked like the job's."""
    write_rows("d.jsonl", [{"id": "a", "graders": [grader]}])
    assert refuse(lambda: scan("d.jsonl")).startswith(f"d.jsonl:1: {message}")


def test_inline_sample_may_hold_templates_and_schema_files() -> None:
    """What the job itself says is trusted: templates, and schema files loaded in place."""
    Path("s.json").write_text("true")
    graders = "[{type: exact, expected: '{{ answer }}'}, {type: json-schema, file: s.json}]"
    (sample,) = scan_samples(load(BODY + f"samples: [{{id: a, answer: x, graders: {graders}}}]\n"))
    assert sample.graders == ({"type": "exact", "expected": "{{ answer }}"}, {"type": "json-schema", "schema": True})
    assert sample.where == "job.yaml:4:11"


def test_hash_set_remembers_what_it_was_given() -> None:
    """The flat set agrees with Python's own, zero and growth included."""
    seen, flat = set(), HashSet()
    for number in range(20_000):
        key = hash(str(number % 15_000)) if number else 0
        assert flat.add(key) is (key not in seen)
        seen.add(key)


def test_dataset_error_is_raised_at_the_row_not_before() -> None:
    """Samples stream: those before a broken row are there."""
    write_rows("d.jsonl", [{"id": "a"}, {"id": ""}])
    samples = scan_samples(load(BODY + "dataset: d.jsonl\n"))
    assert next(samples).sample_id == "a"
    with pytest.raises(DatasetError):
        next(samples)
