"""Reply bodies off the wire: content codings undone piece by piece, under a cap.

Chunks enter as received, the decoded body leaves, at its end or piece by piece. A body can never grow beyond its cap,
whatever a few received bytes decode to.
"""

import zlib
from collections.abc import Iterable, Iterator

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Cap on the decoded body of one reply."""
_PIECE_BYTES = 256 * 1024
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_DEFLATE_METHOD = 8


class BodyTooLargeError(Exception):
    """The decoded body would pass its cap."""


class BodyCodingError(Exception):
    """The content coding is unknown, damaged or cut off."""


class BodyReader:
    """Collects one body.

    Args:
        encoding: The `content-encoding` header; "" and `identity` mean none.
        max_bytes: Cap on the decoded size.
    """

    def __init__(self, encoding: str, *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._encoding = encoding.strip().lower()
        self.max_bytes = max_bytes
        self._pieces: list[bytes] = []
        self.n_decoded_bytes = 0
        self._inflater: zlib._Decompress | None = None
        self.n_received_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next received bytes.

        Raises:
            BodyTooLargeError: The decoded body passes the cap.
            BodyCodingError: The coding is unknown or damaged.
        """
        for piece in self.decode(chunk):
            self.keep(piece)

    def decode(self, chunk: bytes) -> Iterable[bytes]:
        """Take the next received bytes; what they decode to comes in pieces of bounded size, and is not kept.

        Raises:
            BodyTooLargeError: The decoded body passes the cap, whether it is kept or not.
            BodyCodingError: The coding is unknown or damaged.
        """
        self.n_received_bytes += len(chunk)
        if self._encoding in {"", "identity"}:
            return (self._count(chunk),)
        if self._encoding in {"gzip", "x-gzip", "deflate"}:
            return self._inflate(chunk)
        msg = f"content coding {self._encoding[:40]!r} was not asked for and cannot be read"
        raise BodyCodingError(msg)

    def keep(self, piece: bytes) -> None:
        """Make a decoded piece part of the body."""
        self._pieces.append(piece)

    def peek(self) -> bytes:
        """Return what has been kept so far."""
        return b"".join(self._pieces)

    def peek_begin(self, n_bytes: int) -> bytes:
        """Return the first bytes of what has been kept so far, without joining all of it."""
        pieces: list[bytes] = []
        n_left = n_bytes
        for piece in self._pieces:
            if n_left <= 0:
                break
            pieces.append(piece[:n_left])
            n_left -= len(piece)
        return b"".join(pieces)

    def check_end(self) -> None:
        """Make sure that the body is whole, now that the last byte came.

        Raises:
            BodyCodingError: The coded body ends too early.
        """
        if self._inflater is not None and not self._inflater.eof:
            msg = f"the {self._encoding} body is cut off"
            raise BodyCodingError(msg)

    def _count(self, piece: bytes) -> bytes:
        self.n_decoded_bytes += len(piece)
        if self.n_decoded_bytes > self.max_bytes:
            raise BodyTooLargeError
        return piece

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflater is None or self._inflater.eof:
                self._inflater = self._open_inflater(data[0])
            try:
                piece = self._inflater.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                msg = f"the {self._encoding} body is damaged: {error}"
                raise BodyCodingError(msg) from None
            yield self._count(piece)
            # A gzip body may be several members one after the other; each wants an inflater of its own.
            data = self._inflater.unused_data or self._inflater.unconsumed_tail

    def _open_inflater(self, first_byte: int) -> "zlib._Decompress":
        if self._encoding != "deflate":
            return zlib.decompressobj(_GZIP_WINDOW)
        # "deflate" means the zlib format, but some servers send the bare stream.
        is_zlib_format = first_byte & 0x0F == _DEFLATE_METHOD
        return zlib.decompressobj(zlib.MAX_WBITS if is_zlib_format else -zlib.MAX_WBITS)
