import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from evalrun.errors import ManifestDamagedError, SchemaMismatchError, StoreError
from evalrun.store.manifest import is_finished, read_extent, read_manifest, write_manifest
from tests.store.fake_records import make_folder, make_manifest


def test_manifest_comes_back_in_its_order(tmp_path: Path) -> None:
    """What was written is read, keys in order, with the version in front."""
    folder = make_folder(tmp_path)
    manifest = make_manifest(job_name="数学")
    write_manifest(folder, manifest)
    assert list(read_manifest(folder).items()) == [("schema_version", "1"), *manifest.items()]
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


@pytest.mark.parametrize(("version", "words"), [("2", "update evalrun"), ("0", "use the evalrun that wrote it")])
def test_manifest_of_another_version_is_refused(tmp_path: Path, version: str, words: str) -> None:
    """A file of another version is never half understood; the message says which way to go."""
    folder = make_folder(tmp_path)
    folder.manifest_path.write_text(json.dumps({"schema_version": version}))
    with pytest.raises(SchemaMismatchError, match=words):
        read_manifest(folder)


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"{}", b'"1"', b"\xff\xfe", b"[" * 100_000])
def test_manifest_that_is_none_of_ours_is_damaged(tmp_path: Path, content: bytes) -> None:
    """Whatever else stands under the name is damage, told with the command that mends it."""
    folder = make_folder(tmp_path)
    folder.manifest_path.write_bytes(content)
    with pytest.raises(ManifestDamagedError, match=r"is damaged: .*--resume 20261122-120000-abcdef"):
        read_manifest(folder)


@pytest.mark.parametrize("key", make_manifest())
@pytest.mark.parametrize("value", ["absent", None, 7, "text", [1], {"ok": "3"}, True])
def test_manifest_with_any_key_spoilt_is_whole_or_damaged(tmp_path: Path, key: str, value: Any) -> None:
    """A key that is gone or of another kind is named, never a crash of whoever reads on."""
    folder = make_folder(tmp_path)
    manifest = {"schema_version": "1", **make_manifest(**{key: value})}
    if value == "absent":
        del manifest[key]
    folder.manifest_path.write_text(json.dumps(manifest))
    try:
        read = read_manifest(folder)
    except ManifestDamagedError as error:
        assert f"`{key}" in str(error)  # noqa: PT017 - either ending is right, and this one has to name the key
    else:
        assert type(read[key]) is type(make_manifest()[key])
        assert is_finished(read) in {True, False}


@pytest.mark.parametrize(("content", "expected"), [(None, None), ("{", None), (json.dumps, 3)])
def test_extent_tells_only_what_run_json_knows(tmp_path: Path, content: Any, expected: int | None) -> None:
    """Rows that are done are counted where run.json is whole; where it is not, nobody guesses."""
    folder = make_folder(tmp_path)
    if content is not None:
        text = content({"schema_version": "1", **make_manifest()}) if callable(content) else content
        folder.manifest_path.write_text(text)
    extent = read_extent(folder)
    assert (None if extent is None else extent.n_done) == expected


def test_extent_refuses_another_version(tmp_path: Path) -> None:
    """A run of a newer version is not resumed as if it had no run.json."""
    folder = make_folder(tmp_path)
    folder.manifest_path.write_text('{"schema_version": "2"}')
    with pytest.raises(SchemaMismatchError):
        read_extent(folder)


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
