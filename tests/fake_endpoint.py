"""A scripted chat-completions server: real HTTP over loopback, in a thread of its own, that records what it was sent.

Use it with `with FakeEndpoint() as endpoint:` from plain and from async tests alike. Without a script it answers every
request with a completion. `endpoint.script(...)` queues replies for the next requests, whichever they are;
`endpoint.script_for("text", ...)` queues replies for the requests whose body holds the text. The last reply of a queue
with `repeat_last=True` stays. A reply may also be a function of the request.
"""

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self

_SETTLE_S = 0.005
_TLS_HANDSHAKE = b"\x16"
MAX_WAIT_S = 30.0
"""Longest time the server's thread may take to start or to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """One request as the server received it."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    at_s: float
    """Monotonic time at which it was whole."""
    connection: int
    """Number of the connection it came on, 0-based."""

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def prompt(self) -> str:
        """Content of the last message."""
        return str(self.json["messages"][-1]["content"])


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeReply:
    """What the server does with one request."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Before the status line."""
    framing: Literal["length", "chunked", "close"] = "length"
    declared_bytes: int | None = None
    """A `content-length` that lies; None tells the truth."""
    piece_bytes: int | None = None
    """The body leaves in pieces of this size, `piece_delay_s` apart; None sends it at once."""
    piece_delay_s: float = 0.0
    n_times: int = 1
    """The body leaves so many times over: a huge one that nobody holds in memory."""
    cut_after_bytes: int | None = None
    """The connection ends after so many bytes of the body; None sends all of it."""
    ending: Literal["keep", "fin", "rst"] = "keep"
    """What becomes of the connection afterwards; a cut always ends it, by `fin` unless `rst` is asked for."""
    raw: bytes | None = None
    """Sent verbatim instead of everything above; b"" sends nothing."""


Script = FakeReply | Callable[[SeenRequest], FakeReply]


def make_completion(
    text: str | None = "ok",
    *,
    finish_reason: str | None = "stop",
    usage: Any = (10, 5),
    model: str = "m",
    message: Mapping[str, Any] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Return a completion object; a usage given as (prompt, completion) is written out, None leaves it out."""
    if isinstance(usage, tuple):
        usage = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **(message or {})},
                "finish_reason": finish_reason,
            }
        ],
        **extra,
    }
    return value if usage is None else {**value, "usage": usage}


def reply_json(value: Any, *, status: int = 200, **behaviour: Any) -> FakeReply:
    """Return a reply whose body is the value as JSON."""
    headers = {"content-type": "application/json", **behaviour.pop("headers", {})}
    return FakeReply(status=status, body=json.dumps(value).encode(), headers=headers, **behaviour)


def reply_text(text: str = "ok", **behaviour: Any) -> FakeReply:
    """Return a completion that says the text."""
    return reply_json(make_completion(text), **behaviour)


def make_chunks(
    *texts: str, finish_reason: str | None = "stop", usage: Any = (10, 5), index: int = 0, model: str = "m"
) -> list[dict[str, Any]]:
    """Return the chunks of a streamed completion in OpenAI's order: role, texts, finish_reason, usage.

    A finish_reason of None leaves the reply unfinished, a usage of None leaves its chunk out.
    """
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": text}, None) for text in texts]
    deltas += [] if finish_reason is None else [({}, finish_reason)]
    shared = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    chunks: list[dict[str, Any]] = [
        {**shared, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]} for delta, reason in deltas
    ]
    if usage is not None:
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        chunks.append({**shared, "choices": [], "usage": counts})
    return chunks


def encode_stream(chunks: Iterable[Any], *, has_done: bool = True) -> bytes:
    """Return values as server-sent events; bytes stand for themselves."""
    events = [chunk if isinstance(chunk, bytes) else b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in chunks]
    return b"".join(events) + (b"data: [DONE]\n\n" if has_done else b"")


def reply_stream(*chunks: Any, has_done: bool = True, **behaviour: Any) -> FakeReply:
    """Return a streamed reply; without chunks, one that says `ok`. Texts stand for chunks of a whole completion."""
    is_text = all(isinstance(chunk, str) for chunk in chunks)
    values = make_chunks(*(chunks or ("o", "k"))) if is_text else chunks
    headers = {"content-type": "text/event-stream", **behaviour.pop("headers", {})}
    behaviour.setdefault("framing", "chunked")
    return FakeReply(body=encode_stream(values, has_done=has_done), headers=headers, **behaviour)


def reply_error(
    status: int, message: str = "no", *, code: Any = None, param: str | None = None, **behaviour: Any
) -> FakeReply:
    """Return an error in OpenAI's shape."""
    error = {"message": message, "type": "error", "param": param, "code": code}
    return reply_json({"error": error}, status=status, **behaviour)


class FakeEndpoint:
    """The server; a context manager.

    Args:
        tls: Context of a server that speaks TLS; None speaks plain HTTP.
        default: Reply to requests that no script speaks for.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, default: Script | None = None) -> None:
        self.requests: list[SeenRequest] = []
        self.default: Script = default or reply_text()
        self.n_connections = 0
        self.n_in_flight = 0
        self.max_in_flight = 0
        self.port = 0
        self._tls = tls
        self._queue: deque[Script] = deque()
        self._queues: list[tuple[bytes, deque[Script], bool]] = []
        self._is_started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="fake-endpoint", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_started.wait(MAX_WAIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(MAX_WAIT_S)
        assert not self._thread.is_alive()

    @property
    def base_url(self) -> str:
        """Base address for a job: requests go to {base_url}/chat/completions."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    @property
    def prompts(self) -> list[str]:
        """Last message of every request, in order of arrival."""
        return [request.prompt for request in self.requests]

    def count_prompts(self) -> Counter[str]:
        """Return how often each prompt was sent."""
        return Counter(self.prompts)

    def script(self, *replies: Script) -> None:
        """Queue replies for the next requests that no `script_for` speaks for."""
        self._queue.extend(replies)

    def script_for(self, text: str, *replies: Script, repeat_last: bool = False) -> None:
        """Queue replies for the requests whose body holds the text."""
        self._queues.append((text.encode(), deque(replies), repeat_last))

    # The server's own thread

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections[asyncio.ensure_future(self._handle(reader, writer))] = writer

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=self._tls, backlog=2048)
        self.port = server.sockets[0].getsockname()[1]
        self._is_started.set()
        await self._stopping.wait()
        await asyncio.sleep(_SETTLE_S)  # asyncio leaks a connection that is being accepted while its server closes.
        server.close()
        await asyncio.sleep(_SETTLE_S)
        for task, writer in connections.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(_SETTLE_S)  # The loop closes the sockets in its next rounds.
        await server.wait_closed()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.n_connections
        self.n_connections += 1
        try:
            while await self._serve_one(reader, writer, number):
                pass
        except _NotHttpError:
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # The client hung up, as clients do.
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """Answer one request; False ends the connection."""
        seen = await _read_request(reader, number)
        self.requests.append(seen)
        self.n_in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.n_in_flight)
        script = self._choose(seen)
        reply = script if isinstance(script, FakeReply) else script(seen)
        try:
            await asyncio.sleep(reply.delay_s)
            *first, last = _iterate_pieces(reply)
            for piece in first:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(reply.piece_delay_s)
        finally:
            # Done before its last byte leaves: the client may send the next request at once.
            self.n_in_flight -= 1
        writer.write(last)
        await writer.drain()
        return _end(reply, writer)

    def _choose(self, seen: SeenRequest) -> Script:
        for text, replies, repeat_last in self._queues:
            if text in seen.body and replies:
                return replies[0] if repeat_last and len(replies) == 1 else replies.popleft()
        return self._queue.popleft() if self._queue else self.default


def _end(reply: FakeReply, writer: asyncio.StreamWriter) -> bool:
    """End the connection as the reply asks; True keeps it."""
    is_cut = reply.cut_after_bytes is not None or reply.framing == "close" or reply.raw is not None
    if reply.ending == "rst":
        _reset(writer)
    return reply.ending == "keep" and not is_cut


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST instead of FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _iterate_pieces(reply: FakeReply) -> list[bytes]:
    if reply.raw is not None:
        return [reply.raw]
    body = reply.body if reply.cut_after_bytes is None else reply.body[: reply.cut_after_bytes]
    n = reply.piece_bytes or max(1, len(body))
    pieces = [body[start : start + n] for start in range(0, len(body), n)] * reply.n_times
    if reply.framing == "chunked":
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
        pieces += [b"0\r\n\r\n"] if reply.cut_after_bytes is None else []
    head = _make_head(reply)
    # Head and body leave in one write, as servers do it; a body in pieces lets its head go first.
    return [head, *pieces] if reply.piece_bytes or reply.n_times > 1 else [head + b"".join(pieces)]


def _make_head(reply: FakeReply) -> bytes:
    headers = dict(reply.headers)
    if reply.framing == "chunked":
        headers["transfer-encoding"] = "chunked"
    elif reply.framing == "length":
        n = len(reply.body) * reply.n_times if reply.declared_bytes is None else reply.declared_bytes
        headers["content-length"] = str(n)
    if reply.ending != "keep" or reply.framing == "close":
        headers.setdefault("connection", "close")
    lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class _NotHttpError(Exception):
    """A client speaks TLS to a server that does not."""


async def _read_request(reader: asyncio.StreamReader, connection: int) -> SeenRequest:
    first_byte = await reader.readexactly(1)
    if first_byte == _TLS_HANDSHAKE:
        raise _NotHttpError
    head = first_byte.decode("latin-1") + (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return SeenRequest(
        method=method, path=path, headers=headers, body=body, at_s=time.monotonic(), connection=connection
    )


def close_idle(reply: FakeReply) -> FakeReply:
    """Return the reply as one after which the server closes the connection without having announced it."""
    return replace(reply, ending="fin", headers={**reply.headers, "connection": "keep-alive"})
