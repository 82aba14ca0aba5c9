"""Reads one small text file of the job's author: YAML, TOML or JSON to plain data with places.

Files enter, a Document leaves. Whatever the syntax, the data are JSON values and each key has a place.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from evalrun.errors import ConfigError
from evalrun.job.json_syntax import parse_json
from evalrun.job.literal_keys import find_literal_keys
from evalrun.job.places import Places
from evalrun.job.toml_syntax import parse_toml
from evalrun.job.yaml_syntax import parse_yaml

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Largest file of this kind; samples in such numbers belong into a dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file's data, and where each key of it stands."""

    data: Any
    places: Places
    problems: tuple[Any, ...]
    """Keys written out in the file: the data can be used to look for more."""


def load_document(path: Path, *, shown_as: str | None = None, where: str | None = None) -> Document:
    """Read a YAML, TOML or JSON file, by its suffix.

    Args:
        path: The file.
        shown_as: Its name in messages; default: the path as given.
        where: The place that names the file; None when the command line does.

    Raises:
        ConfigError: The file is not there, not UTF-8, or not of its syntax.
    """
    file = shown_as or str(path)
    text = load_text(path, file=file, where=where)
    places = Places(file)
    suffix = path.suffix.lower()
    if suffix in {".yaml", ".yml"}:
        data = parse_yaml(text, places)
    elif suffix == ".json":
        data = parse_json(text, places)
    elif suffix == ".toml":
        data = parse_toml(text, places)
    else:
        message = f"{file} has no suffix that tells its syntax"
        raise ConfigError(message, where=where, hint="name it .yaml, .yml, .toml or .json")
    return Document(data=data, places=places, problems=tuple(find_literal_keys(text, file)))


def load_text(path: Path, *, file: str, where: str | None) -> str:
    """Read a UTF-8 file of the author; a byte order mark is dropped.

    Raises:
        ConfigError: The file is not there, too large, or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            message = f"{file} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
            raise ConfigError(message, where=where, hint="move the samples into a .jsonl dataset")
        content = path.read_bytes()
    except FileNotFoundError as error:
        hint = suggest(path.name, _list_names(path.parent))
        raise ConfigError(f"there is no file {file}", where=where, hint=hint) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {_name_os_error(error)}", where=where) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
            raise ConfigError("the file is UTF-16", where=f"{file}:1", hint="save it as UTF-8") from error
        message = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise ConfigError(message, where=f"{file}:{line}", hint="save the file as UTF-8") from error


def suggest(word: str, known: Iterable[str]) -> str | None:
    """Return `did you mean …?` with the nearest known word; None when none is near."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else None


def suggest_or_list(word: str, known: Iterable[str], *, label: str = "known here") -> str | None:
    """Return the nearest known word, or else all of them; None when there are none."""
    names = list(known)
    return suggest(word, names) or (f"{label}: {', '.join(names)}" if names else None)


def _list_names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []


def _name_os_error(error: OSError | ValueError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
