"""Bodies off the wire: every coding asked for is undone, and no body passes its cap."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.decoding import BodyCodingError, BodyReader, BodyTooLargeError

BODY = b"some text, some text, some text" * 50


def bare_deflate(content: bytes) -> bytes:
    """Compress without the zlib header, as some servers do under `deflate`."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


@pytest.mark.parametrize(
    ("encoding", "coded"),
    [
        ("", BODY),
        ("identity", BODY),
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("X-GZIP ", gzip.compress(BODY, mtime=0)),
        ("gzip", gzip.compress(BODY[:100], mtime=0) + gzip.compress(BODY[100:], mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", bare_deflate(BODY)),
        ("gzip", b""),
    ],
)
@given(data=st.data())
def test_body_is_decoded_however_it_is_split(encoding: str, coded: bytes, data: st.DataObject) -> None:
    """The pieces in which a body arrives make no difference."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(coded)), max_size=5)))
    reader = BodyReader(encoding)
    for start, end in zip([0, *cuts], [*cuts, len(coded)], strict=True):
        reader.feed(coded[start:end])
    reader.check_end()
    assert reader.peek() == (BODY if coded else b"")
    assert reader.n_received_bytes == len(coded)


@pytest.mark.parametrize("coded", [gzip.compress(BODY, mtime=0)[:-8], gzip.compress(BODY, mtime=0)[:30]])
def test_body_cut_off_is_noticed(coded: bytes) -> None:
    """A coded body that ends early is damaged, though every byte of it could be read."""
    reader = BodyReader("gzip")
    reader.feed(coded)
    with pytest.raises(BodyCodingError, match="cut off"):
        reader.check_end()


@pytest.mark.parametrize(("encoding", "coded"), [("gzip", b"no gzip at all"), ("br", b"x"), ("gzip, gzip", b"x")])
def test_unreadable_coding_is_named(encoding: str, coded: bytes) -> None:
    """A coding that was not asked for, or is not what it says, is damage."""
    with pytest.raises(BodyCodingError):
        BodyReader(encoding).feed(coded)


def test_bomb_stops_at_the_cap() -> None:
    """A few bytes that decode to very many are given up at the cap, not after."""
    reader = BodyReader("gzip", max_bytes=1_000_000)
    with pytest.raises(BodyTooLargeError):
        reader.feed(gzip.compress(bytes(50_000_000)))
    assert len(reader.peek()) <= 1_000_000


def test_plain_body_stops_at_the_cap() -> None:
    """The cap holds for bodies without a coding too; exactly the cap is still read."""
    reader = BodyReader("", max_bytes=10)
    reader.feed(b"x" * 10)
    with pytest.raises(BodyTooLargeError):
        reader.feed(b"x")
