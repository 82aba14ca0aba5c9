"""What has come of one reply's body: bytes enter as received, a whole body leaves, or what is wrong with it.

A reply that was asked for as a stream, or says that it is one, is read event by event and leaves as the completion that
its chunks are pieces of; any other is one document. Pure: no network, no clock.
"""

from collections.abc import Mapping
from contextlib import suppress

from evalrun.dispatch.decoding import BodyCodingError, BodyReader, BodyTooLargeError
from evalrun.dispatch.faults import EVIDENCE_BYTES
from evalrun.dispatch.redaction import Redactor
from evalrun.dispatch.sse import MAX_EVENT_BYTES, EventTooLargeError
from evalrun.dispatch.streams import StreamDamageError, StreamReader
from evalrun.records import ErrorCode

MAX_ERROR_BODY_BYTES = 1024 * 1024
"""Of a reply that is no 2xx, no more than this is read: it only explains a failure."""
MAX_SAID_BYTES = 8 * 1024 * 1024
"""Of a longer stream that failed its words are not put together once more, only to guess their tokens."""
_MIB = 1024**2


class IntakeError(Exception):
    """The body is not what it should be; code and message say what.

    Args:
        code: `body_invalid`, `body_too_large` or `stream_incomplete`.
        message: What is wrong.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Intake:
    """The body of one reply.

    Args:
        status: HTTP status.
        headers: Names in lower case.
        is_stream: Whether a stream was asked for.
        n_choices: Choices that were asked for.
    """

    def __init__(self, status: int, headers: Mapping[str, str], *, is_stream: bool, n_choices: int) -> None:
        is_event_stream = "text/event-stream" in headers.get("content-type", "").lower()
        self.status = status
        self.headers = headers
        self._is_success = 200 <= status < 300
        self._body = BodyReader(headers.get("content-encoding", ""))
        self._stream = (
            StreamReader(is_event_stream=is_event_stream, n_choices=n_choices)
            if self._is_success and (is_stream or is_event_stream)
            else None
        )
        self._is_cut = False
        self._failure: IntakeError | None = None

    @property
    def bytes_received(self) -> int:
        """Size as received."""
        return self._body.n_received_bytes

    @property
    def is_stream(self) -> bool:
        """True when the reply is a stream, whatever was asked for."""
        return self._stream is not None and self._stream.is_stream

    @property
    def has_token(self) -> bool:
        """True once a streamed reply said a word."""
        return self._stream is not None and self._stream.has_token

    @property
    def is_done(self) -> bool:
        """True once a stream said that it is done."""
        return self._stream is not None and self._stream.is_done

    @property
    def has_failed(self) -> bool:
        """True once a stream reported an error of the server."""
        return self._stream is not None and self._stream.has_failed

    @property
    def is_enough(self) -> bool:
        """True once nothing more of the body is of interest."""
        if self._failure is not None or (self._stream is not None and self._stream.has_failed):
            return True
        return not self._is_success and self._body.n_decoded_bytes > MAX_ERROR_BODY_BYTES

    @property
    def is_complete(self) -> bool:
        """True when the reply lacks nothing that matters, though it did not end by itself.

        A stream may have said all there is to say; of a reply that is no 2xx, its status is enough.
        """
        stream = self._stream
        if not self._is_success or stream is None:
            return not self._is_success
        return stream.is_done or (stream.is_stream and stream.explain_gap(is_cut=True) is None)

    @property
    def flags(self) -> tuple[str, ...]:
        """What is odd about the way in which a completion came."""
        if self._stream is None:
            return ()
        return self._stream.flags if self._stream.is_stream else ("not_streamed",)

    def feed(self, chunk: bytes) -> None:
        """Take the next received bytes; what is wrong with them is told at the end."""
        try:
            for piece in self._body.decode(chunk):
                rest = piece if self._stream is None else self._stream.feed(piece)
                if rest:
                    self._body.keep(rest)
        except (BodyTooLargeError, BodyCodingError, EventTooLargeError, StreamDamageError) as error:
            self._failure = self._translate(error)

    def cut(self, reason: str | None = None) -> bool:
        """Note that the body was cut off; False when that leaves no reply to speak of.

        Of a reply that is no 2xx its status matters more than its body, and a stream may have been complete already.

        Args:
            reason: What is wrong with a document's transfer; None when only the connection was lost.
        """
        self._is_cut = True
        if self._is_success and (self._stream is None or not self._stream.is_stream):
            if reason is None:
                return False
            self._failure = IntakeError(ErrorCode.BODY_INVALID, reason)
        return True

    def end(self) -> bytes:
        """Return the body, now that nothing more comes: the document, or the completion put together.

        Raises:
            IntakeError: The body is not what it should be. Never for a reply that is no 2xx.
        """
        if not self._is_success:
            return self._body.peek()
        if self._failure is None:
            self._check_coding()
        if self._failure is not None:
            raise self._failure
        if self._stream is not None:
            self._end_stream(self._stream)
            if self._stream.is_stream:
                return self._write_stream(self._stream)
        return self._body.peek()

    def make_evidence(self, redactor: Redactor) -> bytes:
        """Return the beginning of what came, secrets masked: for people who want to see what went wrong.

        Of a stream that went wrong, what it looked like; of one that only lacks its end, what it said so far. A secret
        may be spread over the events, where no search finds it: then, too, what they say together.
        """
        stream = self._stream
        if stream is None or not stream.is_stream:
            return redactor.redact_bytes(self._body.peek_begin(2 * EVIDENCE_BYTES))[:EVIDENCE_BYTES]
        if self._failure is None and not stream.has_failed:
            return redactor.redact_bytes(stream.write_said())[:EVIDENCE_BYTES]
        head = bytes(stream.head)
        together = _read_together(head)
        masked = redactor.redact_bytes(together)
        return (redactor.redact_bytes(head) if masked is together else masked)[:EVIDENCE_BYTES]

    def write_said(self, redactor: Redactor) -> bytes | None:
        """Return all that a stream has said so far, secrets masked, as the JSON of a completion.

        None of a document, and of a stream so long that memory would suffer.
        """
        stream = self._stream
        if stream is None or not stream.is_stream or self._body.n_decoded_bytes > MAX_SAID_BYTES:
            return None
        return redactor.redact_bytes(stream.write_said())

    def _check_coding(self) -> None:
        try:
            self._body.check_end()
        except BodyCodingError as error:
            self.cut(str(error))

    def _end_stream(self, stream: StreamReader) -> None:
        try:
            self._body.keep(stream.end())
        except StreamDamageError as error:
            self._failure = self._translate(error)
            raise self._failure from None

    def _write_stream(self, stream: StreamReader) -> bytes:
        gap = stream.explain_gap(is_cut=self._is_cut)
        if gap is not None:
            raise IntakeError(ErrorCode.STREAM_INCOMPLETE, f"the stream is incomplete: {gap}")
        try:
            return stream.write()
        except ValueError as error:
            raise IntakeError(ErrorCode.BODY_INVALID, f"the stream cannot be put together: {error}") from None

    def _translate(self, error: Exception) -> IntakeError:
        if isinstance(error, BodyTooLargeError):
            text = f"the reply's body is larger than {self._body.max_bytes // _MIB} MiB"
            return IntakeError(ErrorCode.BODY_TOO_LARGE, text)
        if isinstance(error, EventTooLargeError):
            text = f"an event of the stream is larger than {MAX_EVENT_BYTES // _MIB} MiB"
            return IntakeError(ErrorCode.BODY_TOO_LARGE, text)
        return IntakeError(ErrorCode.BODY_INVALID, str(error))


def _read_together(head: bytes) -> bytes:
    """Return what the beginning of a stream says, up to the first event that is none."""
    stream = StreamReader(is_event_stream=True)
    with suppress(StreamDamageError, EventTooLargeError):
        stream.feed(head)
    return stream.write_said()
