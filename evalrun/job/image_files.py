"""Local images that data name: read below the job's `files_root` only, and sent as data URLs."""

import base64
from pathlib import Path

from evalrun.errors import DatasetError
from evalrun.job.file_marks import FileMarks

MAX_IMAGE_BYTES = 20 * 1024 * 1024
"""Largest image that is read; providers refuse larger ones."""

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def load_image_url(name: str, root: Path, marks: FileMarks | None = None) -> str:
    """Return a local image as a `data:` URL.

    Args:
        name: Path below the root, as the data have it.
        root: The job's `files_root`; links are followed before the two are compared.
        marks: Remember the file, where it is wanted to be seen whether it stays as it is.

    Raises:
        DatasetError: The path leads outside, or the file is not there, too large, or no image.
    """
    path = _resolve_below(name, root)
    try:
        if not path.is_file():
            raise DatasetError(f"there is no image file {name!r} below files_root")
        stat = path.stat()
        size = stat.st_size
        if size > MAX_IMAGE_BYTES:
            raise DatasetError(f"the image {name!r} has {size:,} bytes; at most {MAX_IMAGE_BYTES:,} are sent")
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"the image {name!r} cannot be read: {error.strerror}") from error
    if marks is not None:
        marks.note_content(path, stat, content)
    return f"data:{_detect_type(content, name)};base64,{base64.b64encode(content).decode()}"


def _resolve_below(name: str, root: Path) -> Path:
    try:
        resolved_root = root.resolve(strict=True)
        path = (resolved_root / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"the path {name!r} cannot be followed") from error
    if not path.is_relative_to(resolved_root):
        hint = "data may name files below `files_root` only"
        raise DatasetError(f"the path {name!r} leads outside files_root", hint=hint)
    return path


def _detect_type(content: bytes, name: str) -> str:
    for signature, media_type in _SIGNATURES:
        if content.startswith(signature):
            return media_type
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    raise DatasetError(f"the file {name!r} is not a PNG, JPEG, GIF or WebP image")
