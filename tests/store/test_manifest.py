import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from evalrun.errors import SchemaMismatchError, StoreError
from evalrun.store.manifest import is_finished, read_manifest, write_manifest
from tests.store.fake_records import make_folder


def test_manifest_comes_back_in_its_order(tmp_path: Path) -> None:
    """What was written is read, keys in order, with the version in front."""
    folder = make_folder(tmp_path)
    write_manifest(folder, {"run_id": "r", "job_name": "数学", "counts": {"ok": 1}})
    assert list(read_manifest(folder).items()) == [
        ("schema_version", "1"),
        ("run_id", "r"),
        ("job_name", "数学"),
        ("counts", {"ok": 1}),
    ]
    assert "数学" in folder.manifest_path.read_text("utf-8")
    assert folder.manifest_path.stat().st_mode & 0o777 == 0o600


def test_manifest_writes_money_times_and_surrogates_as_json(tmp_path: Path) -> None:
    """Decimals are numbers, times ISO, paths text, and a lone surrogate is its escape."""
    folder = make_folder(tmp_path)
    facts = {
        "usd": Decimal("0.1"),
        "at": datetime(2026, 11, 22, tzinfo=UTC),
        "path": Path("a/b"),
        "map": MappingProxyType({"a": 1}),
        "text": "\ud800",
    }
    write_manifest(folder, facts)
    assert json.loads(folder.manifest_path.read_bytes()) == {
        "schema_version": "1",
        "usd": 0.1,
        "at": "2026-11-22T00:00:00+00:00",
        "path": "a/b",
        "map": {"a": 1},
        "text": "\ud800",
    }


def test_manifest_of_an_unknown_kind_of_value_is_refused(tmp_path: Path) -> None:
    """A value that JSON has no word for is a loud error, and no file appears."""
    folder = make_folder(tmp_path)
    with pytest.raises(TypeError, match="object cannot be written"):
        write_manifest(folder, {"x": object()})
    assert not folder.manifest_path.exists()


def test_manifest_that_is_missing_says_how_to_finish(tmp_path: Path) -> None:
    """A run that did not end names the command that ends it."""
    with pytest.raises(StoreError, match="--resume 20261122-120000-abcdef"):
        read_manifest(make_folder(tmp_path))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"schema_version": "2"}', '"1"'])
def test_manifest_of_another_kind_or_version_is_refused(tmp_path: Path, content: str) -> None:
    """A file that is not ours, or of another version, is never half understood."""
    folder = make_folder(tmp_path)
    folder.manifest_path.write_text(content)
    with pytest.raises(SchemaMismatchError):
        read_manifest(folder)


def test_manifest_that_cannot_be_read_is_a_store_error(tmp_path: Path) -> None:
    """A folder under the manifest's name is the disk's fault, told with its path."""
    folder = make_folder(tmp_path)
    folder.manifest_path.mkdir()
    with pytest.raises(StoreError, match="cannot read"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"counts": {"ok": 3, "pending": 0}, "errors": {}}, True),
        ({"counts": {"ok": 3, "pending": 1}, "errors": {"quota": 1}}, False),
        ({"counts": {"ok": 3, "error": 1}, "errors": {"bad_request": 1}}, True),
        ({"counts": {"ok": 3, "error": 1}, "errors": {"timeout_total": 1}}, False),
        ({"counts": {"ok": 3, "error": 0}, "errors": {"timeout_total": 0}}, True),
        ({"counts": {"error": 2}, "errors": {"error_in_200": 2}, "n_permanent_errors": 1}, False),
        ({"counts": {"error": 2}, "errors": {"error_in_200": 2}, "n_permanent_errors": 2}, True),
    ],
)
def test_run_is_finished_when_nothing_is_left_to_ask(manifest: dict[str, Any], expected: bool) -> None:
    """Pending rows and errors that can pass keep a run unfinished; permanent errors do not."""
    assert is_finished(manifest) is expected
