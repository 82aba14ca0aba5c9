"""Texts written for the project and how many tokens each has in o200k.

The counts were taken once, in an environment of their own, with tiktoken 0.14 and the o200k vocabulary in the wheel of
litellm 1.109: `len(tiktoken.get_encoding("o200k_base").encode(text))` with `TIKTOKEN_CACHE_DIR` naming a folder
that holds the file. Neither is needed here.
"""

from pathlib import Path

O200K_COUNTS: dict[str, tuple[int, ...]] = {
    "arabic": (56, 46, 53, 54, 55, 45, 49, 47),
    "chinese": (66, 54, 56, 77, 58, 54, 71, 54),
    "emoji": (36, 27, 33, 42, 29, 32, 48, 45),
    "english": (67, 59, 62, 55, 57, 59, 60, 50),
    "french": (63, 42, 50, 52, 42, 46),
    "german": (53, 40, 49, 48, 43, 43),
    "japanese": (80, 49, 72, 74, 62, 62, 69, 64),
    "javascript": (57, 89, 72, 90, 95, 88, 89, 75),
    "json": (91, 88, 113, 86, 88, 81, 88, 78),
    "korean": (58, 45, 68, 57, 55, 45, 63, 53),
    "numbers": (60, 92, 49, 73, 108, 59, 48, 62),
    "python": (84, 117, 88, 75, 80, 114, 102, 124),
    "russian": (57, 44, 46, 52, 52, 47, 49, 44),
    "thai": (71, 61, 64, 73, 51, 69, 55, 70),
    "yaml": (59, 67, 99, 93, 90, 61, 72, 94),
}
"""Tokens of each text of a kind, in order."""

_FOLDER = Path(__file__).parent / "token_texts"
_BETWEEN = "\n%%\n"


def read_counted_texts(kind: str) -> list[tuple[str, int]]:
    """Return the texts of a kind with the tokens that each has."""
    texts = (_FOLDER / f"{kind}.txt").read_text(encoding="utf-8").rstrip("\n").split(_BETWEEN)
    return list(zip(texts, O200K_COUNTS[kind], strict=True))
