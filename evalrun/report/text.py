"""Untrusted text made fit to be shown: nothing invisible, nothing endless, nothing a format forbids.

Any text enters, a text leaves whose every character can be seen. Display only: the tables keep what came.
"""

import re

_INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 controls, ESC among them; tab and newline stay
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ud800-\udfff"
)
_INVISIBLE_RUN = re.compile(f"[{_INVISIBLE}]")
# A joiner or an emoji selector that follows what it is made for is ordinary writing (Persian, Hindi, Sinhala, emoji).
_ORDINARY = re.compile(
    "(?<=[\u0600-\u06ff\u0750-\u077f\u0900-\u0dff\u1000-\u109f\u1780-\u17ff])[\u200c\u200d](?=[\u0600-\u17ff])"
    "|(?<=[\u203c-\u3299\U0001f000-\U0001faff\ufe0f])\u200d(?=[\u2190-\u2bff\U0001f000-\U0001faff])"
    "|(?<=[0-9#*\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff])\ufe0f"
)
_FORBIDDEN_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def is_plain(text: str) -> bool:
    """Return whether all of a text is printable ASCII and newlines: most are, and no pattern tells it as fast."""
    return text.isascii() and text.replace("\n", "").isprintable()


def make_visible(text: str) -> str:
    """Return the text with each invisible character written as ‹U+202E›; CRLF becomes LF.

    Bidirectional controls, zero-width and tag characters, C0 and C1 controls and lone surrogates are shown. Joiners
    stay where a script or an emoji needs them.
    """
    if is_plain(text) or _INVISIBLE_RUN.search(text) is None:
        return text
    text = text.replace("\r\n", "\n")
    ordinary = {match.start() for match in _ORDINARY.finditer(text)}

    def show(match: re.Match[str]) -> str:
        return match.group() if match.start() in ordinary else f"‹U+{ord(match.group()):04X}›"

    return _INVISIBLE_RUN.sub(show, text)


def clip(text: str, max_chars: int) -> str:
    """Return the text, cut after `max_chars` characters; what is cut is counted in words at its end."""
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]} … [{len(text) - max_chars:,} more characters; the whole text is in results.parquet]"


def make_excerpt(text: str, max_chars: int) -> str:
    """Return the text on one line, white space folded, with an ellipsis when it is longer than `max_chars`."""
    # Folding a little more than is shown keeps the work small whatever the length.
    folded = " ".join(text[: max_chars * 4].split())
    return folded if len(folded) <= max_chars else folded[: max_chars - 1].rstrip() + "…"


def strip_for_xml(text: str) -> str:
    """Return the text without the characters that XML 1.0 forbids even as references."""
    return text if is_plain(text) else _FORBIDDEN_IN_XML.sub("", text)
