"""The candidates behind one small interface, each used directly, as fast as its own interface allows.

`open_client(name, ca=…)` gives a `Client` whose `post` returns status and body, reading a body piece by piece. Missing
libraries raise ImportError, and the caller leaves their rows out.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECT_S = 5.0
HEADERS = (
    ("content-type", "application/json"),
    ("authorization", "Bearer sk-benchmark"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("user-agent", "evalrun-benchmark"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


OnHeaders = Callable[[], None]
Post = Callable[..., Awaitable[Answer]]
"""`await post(url, body, on_headers=None)`; `on_headers` is called once status and headers are there."""


@asynccontextmanager
async def open_client(name: str, *, ca: Path, concurrency: int = 64) -> AsyncIterator[Post]:
    """Open one of the candidates.

    Args:
        name: A key of `CANDIDATES`.
        ca: Certificates of the authority to trust, PEM.
        concurrency: Most requests in flight.
    """
    async with CANDIDATES[name](ca, concurrency) as post:
        yield post


@asynccontextmanager
async def _open_pyreqwest(ca: Path, _concurrency: int) -> AsyncIterator[Post]:
    from pyreqwest.client import ClientBuilder

    builder = ClientBuilder().http1_only().no_proxy().follow_redirects(False)
    builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)
    builder = builder.connect_timeout(timedelta(seconds=CONNECT_S)).add_root_certificate_pem(ca.read_bytes())
    client = builder.build()

    async def post(url: str, body: bytes, on_headers: OnHeaders | None = None) -> Answer:
        request = client.post(url).headers(HEADERS).body_bytes(body).streamed_read_buffer_limit(0)
        pieces = []
        async with request.build_streamed() as response:
            if on_headers is not None:
                on_headers()
            reader = response.body_reader
            while (piece := await reader.read_chunk()) is not None:
                pieces.append(bytes(piece))
        return Answer(response.status, b"".join(pieces))

    yield post
    await client.close()


@asynccontextmanager
async def _open_wreq(ca: Path, concurrency: int) -> AsyncIterator[Post]:
    import wreq

    client = wreq.Client(
        no_proxy=True,
        http1_only=True,
        gzip=False,
        brotli=False,
        deflate=False,
        zstd=False,
        tls_verify=ca,
        connect_timeout=timedelta(seconds=CONNECT_S),
        pool_max_idle_per_host=concurrency,
    )
    headers = dict(HEADERS)

    async def post(url: str, body: bytes, on_headers: OnHeaders | None = None) -> Answer:
        response = await client.post(url, headers=headers, body=body)
        if on_headers is not None:
            on_headers()
        async with response.stream() as stream:
            pieces = [bytes(piece) async for piece in stream]
        return Answer(response.status.as_int(), b"".join(pieces))

    yield post
    client.close()


def _open_httpx_like(library: str) -> Any:
    @asynccontextmanager
    async def open_it(ca: Path, concurrency: int) -> AsyncIterator[Post]:
        module = __import__(library)
        limits = module.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        timeout = module.Timeout(None, connect=CONNECT_S)
        context = ssl.create_default_context(cafile=str(ca))
        async with module.AsyncClient(verify=context, limits=limits, timeout=timeout, trust_env=False) as client:

            async def post(url: str, body: bytes, on_headers: OnHeaders | None = None) -> Answer:
                async with client.stream("POST", url, headers=HEADERS, content=body) as response:
                    if on_headers is not None:
                        on_headers()
                    return Answer(response.status_code, b"".join([piece async for piece in response.aiter_raw()]))

            yield post

    return open_it


def _open_evalrun(engine: str | None) -> Any:
    @asynccontextmanager
    async def open_it(ca: Path, concurrency: int) -> AsyncIterator[Post]:
        import os

        from evalrun.dispatch.transport import make_target, open_transport
        from evalrun.options import EndpointOptions, TimeoutOptions

        os.environ["SSL_CERT_FILE"] = str(ca)
        transports: dict[str, Any] = {}
        contexts = []

        async def post(url: str, body: bytes, on_headers: OnHeaders | None = None) -> Answer:
            base = url.removesuffix("/chat/completions")
            if base not in transports:
                options = EndpointOptions(
                    base_url=base,
                    concurrency=concurrency,
                    transport=engine,  # type: ignore[arg-type]
                    api_key_env="KEY",
                    timeout_s=TimeoutOptions(connect=CONNECT_S),
                )
                context = open_transport(make_target(options, environ={"KEY": "sk-benchmark"}))
                contexts.append(context)
                transports[base] = await context.__aenter__()
            reply = await transports[base].send(body)
            if on_headers is not None:
                on_headers()
            return Answer(reply.status, reply.body)

        yield post
        for context in contexts:
            await context.__aexit__(None, None, None)

    return open_it


@asynccontextmanager
async def _open_bare(ca: Path, _concurrency: int) -> AsyncIterator[Post]:
    """A reference: asyncio and httptools with nothing around them; it knows no error, no deadline and no redirect."""
    import httptools

    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=str(ca))
    idle: list[Any] = []
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS)

    class Exchange(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_body(self, piece: bytes) -> None:
            self.pieces.append(piece)

        def on_message_complete(self) -> None:
            self.done.set_result(None)

        def send(self, request: bytes) -> "asyncio.Future[None]":
            self.pieces: list[bytes] = []
            self.parser = httptools.HttpResponseParser(self)
            self.done: asyncio.Future[None] = loop.create_future()
            self.transport.write(request)
            return self.done

    async def post(url: str, body: bytes, on_headers: OnHeaders | None = None) -> Answer:
        parts = urlsplit(url)
        if idle:
            exchange = idle.pop()
        else:
            tls = context if parts.scheme == "https" else None
            _, exchange = await loop.create_connection(Exchange, parts.hostname, parts.port, ssl=tls)
        first = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n{head}content-length: {len(body)}\r\n\r\n"
        await exchange.send(first.encode() + body)
        if on_headers is not None:
            on_headers()
        idle.append(exchange)
        return Answer(exchange.parser.get_status_code(), b"".join(exchange.pieces))

    yield post
    for exchange in idle:
        exchange.transport.close()


@asynccontextmanager
async def _open_openai(ca: Path, _concurrency: int) -> AsyncIterator[Post]:
    """The reference SDK as its users call it, streamed when the body says so."""
    import json
    import os

    import openai

    os.environ["SSL_CERT_FILE"] = str(ca)
    clients: dict[str, Any] = {}

    async def post(url: str, body: bytes, on_headers: OnHeaders | None = None) -> Answer:
        base = url.removesuffix("/chat/completions")
        if base not in clients:
            clients[base] = openai.AsyncOpenAI(api_key="sk-benchmark", base_url=base, max_retries=0)
        made = await clients[base].chat.completions.create(**json.loads(body))
        if on_headers is not None:
            on_headers()
        if not hasattr(made, "__aiter__"):
            return Answer(200, made.model_dump_json().encode())
        return Answer(200, "".join([chunk.choices[0].delta.content or "" async for chunk in made]).encode())

    yield post
    for client in clients.values():
        with suppress(Exception):
            await client.close()


CANDIDATES: dict[str, Any] = {
    "pyreqwest": _open_pyreqwest,
    "wreq": _open_wreq,
    "httpx2": _open_httpx_like("httpx2"),
    "httpx": _open_httpx_like("httpx"),
    "bare asyncio": _open_bare,
    "openai SDK": _open_openai,
    "evalrun": _open_evalrun(None),
    "evalrun, transport: httpx": _open_evalrun("httpx"),
}
