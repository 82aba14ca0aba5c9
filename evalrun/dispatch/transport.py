"""The one door to HTTP: a request body goes out, a finished reply comes back, within its deadlines.

A `Target` says where to and with which secrets; `open_transport` turns it into a `Transport`. What carries the requests
is an `Engine`; any `httpx.AsyncBaseTransport` can be one. Invariant: nothing that leaves this module, reply or error,
holds a loaded secret; no exception of httpx passes this door.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

import httpx

from evalrun import __version__
from evalrun.dispatch.deadlines import Deadlines, DeadlineWatch
from evalrun.dispatch.engine import Engine, HttpxSeam, Opened, RawHeaders
from evalrun.dispatch.engine_faults import ENGINE_ERRORS, NEVER_SENT, describe_fault, is_garbled
from evalrun.dispatch.exchange import Exchange
from evalrun.dispatch.fast_engine import FastEngine
from evalrun.dispatch.faults import Evidence, excerpt
from evalrun.dispatch.httpx_engine import HttpxEngine
from evalrun.dispatch.intake import Intake, IntakeError
from evalrun.dispatch.redaction import Redactor
from evalrun.dispatch.wire import make_evidence
from evalrun.errors import (
    ApiError,
    ConfigError,
    DamagedReplyError,
    MalformedReplyError,
    Problem,
    TimedOutError,
)
from evalrun.options import EndpointOptions
from evalrun.records import Completion, ErrorCode, SimulatorHint

KEEP_ALIVE_S = 15.0
"""Idle connections are dropped after this; many servers close theirs sooner, which is noticed at reuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an endpoint's requests go, with its secrets read."""

    base_url: str
    options: EndpointOptions
    api_key: str | None = field(repr=False)
    """Sent as `Authorization: Bearer`; None when the endpoint takes none."""
    headers: Mapping[str, str] = field(repr=False)
    """Values of `header_env`, secret; the plain `headers` stay in `options`."""
    written_url: str | None = None
    """The base URL as the job writes it, `${NAME}` unresolved; None when nothing in it was resolved."""

    @property
    def url(self) -> str:
        """The address that requests are posted to: nothing is inserted between base and path."""
        return self.base_url.rstrip("/") + "/chat/completions"

    @property
    def shown_url(self) -> str:
        """The address for messages: what a variable puts into it stays out, as relays take tokens in the path."""
        return (self.written_url or self.base_url).rstrip("/") + "/chat/completions"

    @property
    def hidden_path(self) -> str | None:
        """The base URL's path where variables made part of it, else None."""
        return urlsplit(self.base_url).path.rstrip("/") if self.hidden_segments else None

    @property
    def hidden_segments(self) -> tuple[str, ...]:
        """The parts of the base URL's path that variables made."""
        if self.written_url is None:
            return ()
        written = self.written_url.split("/")
        return tuple(part for part in urlsplit(self.base_url).path.split("/") if part and part not in written)

    @property
    def is_encrypted(self) -> bool:
        """True when requests go to an https address."""
        return self.url.lower().startswith("https:")

    @property
    def is_simulator(self) -> bool:
        """True when the endpoint is a simulator, which alone is told the right answer."""
        return self.options.simulator is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One finished HTTP reply, secrets masked."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of a name that came twice, the last value."""
    body: bytes
    """Decoded and whole; of a reply that is no 2xx, perhaps only its beginning; of a stream, what it says together."""
    evidence: bytes | None
    """Of a stream that reported an error, the beginning as it came, kept instead of the body; None for all others."""
    latency_s: float
    """From the start of the attempt to the last byte, connecting included."""
    first_byte_s: float
    """From the start of the attempt to the reply's headers."""
    first_token_s: float | None
    """From the start of the attempt to the first word of a streamed reply; None when not streamed or no word came."""
    bytes_received: int
    """Body bytes as received, before decoding."""
    is_redacted: bool
    """True when the body held a secret, which is masked now."""
    flags: tuple[str, ...] = ()
    """What is odd about the way it came: `no_done`, `finish_repeated`, `number_dropped` of a stream; `not_streamed`
    where one was asked for; `sent_again` where a connection ended before the reply, and another was taken."""
    said: bytes | None = None
    """What a stream that reported an error had said until then, as the JSON of a completion; None for all others."""


def make_target(
    options: EndpointOptions,
    *,
    environ: Mapping[str, str],
    base_url: str | None = None,
    written_url: str | None = None,
) -> Target:
    """Read an endpoint's secrets and return where its requests go.

    Args:
        options: The endpoint.
        environ: Environment variables.
        base_url: Address of an embedded simulator, with its base path; None takes the endpoint's own.
        written_url: The endpoint's base URL as the job writes it; None = it holds no variable.

    Raises:
        ConfigError: A variable is missing, empty or no header value; the message names it, never its value. Or no
            certificate authority can be loaded, which an https address needs.
    """
    variables = ([options.api_key_env] if options.api_key_env is not None else []) + list(options.header_env.values())
    secrets = {name: environ.get(name, "").strip() for name in variables}
    problems = [
        Problem(message=f"environment variable {name} is {_describe_flaw(value)}", hint=f"export {name}=…")
        for name, value in secrets.items()
        if _describe_flaw(value)
    ]
    if problems:
        raise ConfigError(problems)
    running = options.simulator.url if options.simulator is not None else None
    address = base_url or options.base_url or (running.rstrip("/") + "/chat" if running else None)
    if address is None:
        msg = "the endpoint's simulator is not running: its address is not known"
        raise ConfigError(msg)
    target = Target(
        base_url=address,
        options=options,
        api_key=secrets[options.api_key_env] if options.api_key_env is not None else None,
        headers={header: secrets[name] for header, name in options.header_env.items()},
        written_url=written_url,
    )
    if target.is_encrypted:
        _check_authorities(target)
    return target


def _check_authorities(target: Target) -> None:
    """Make sure that the target's engine finds somebody to trust, before anything is sent."""
    try:
        _open_engine(target, Deadlines.of(target.options.timeout_s))
    except OSError as error:
        named = [f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        problem = Problem(
            message=f"no certificate authority can be loaded ({', '.join(named) or error})",
            hint="name a PEM file of certificates in SSL_CERT_FILE, or unset it",
        )
        raise ConfigError([problem]) from error


def _describe_flaw(value: str) -> str:
    if not value:
        return "missing or empty"
    return "" if value.isascii() and value.isprintable() else "not usable as a header value"


@asynccontextmanager
async def open_transport(
    target: Target, *, engine: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator["Transport"]:
    """Open the connections of one endpoint.

    Args:
        target: Where to, with which secrets and limits.
        engine: Engine to use instead of the target's own; it is closed at the end.
    """
    deadlines = Deadlines.of(target.options.timeout_s, is_stream=target.options.stream)
    opened, watch = _open_engine(target, deadlines, inner=engine), DeadlineWatch()
    try:
        yield Transport(target, opened, deadlines, watch)
    finally:
        watch.close()
        await opened.aclose()


class Transport:
    """Sends bodies to one target.

    Args:
        target: Where to.
        engine: Its connections.
        deadlines: Limits of each attempt.
        watch: Ends the attempts that take longer.
    """

    def __init__(self, target: Target, engine: Engine, deadlines: Deadlines, watch: DeadlineWatch) -> None:
        secrets = [*target.headers.values(), *([target.api_key] if target.api_key is not None else [])]
        self.target = target
        self._engine = engine
        if target.hidden_path is not None:
            secrets.append(target.hidden_path)
        self._redactor = Redactor(secrets)
        # A part of a path may be a word as any other (a region, a deployment), which answers must keep.
        self._failure_redactor = Redactor([*secrets, *target.hidden_segments])
        self._url = httpx.URL(target.url)
        self._deadlines = deadlines
        self._watch = watch

    def __repr__(self) -> str:
        return f"Transport({self.target.shown_url!r})"

    async def send(self, body: bytes, headers: RawHeaders = (), *, n_choices: int = 1) -> Reply:
        """Post one body and return the finished reply, whatever its status.

        A reused connection that turns out dead before a byte of the reply came is replaced once, at once and uncounted:
        the server had closed it while it was idle. That is a guess: the reply says that the request left twice.

        Args:
            body: The request body.
            headers: More headers, of this request only.
            n_choices: Choices that the body asks for: a stream that was cut off may lack some.

        Raises:
            ApiError: No whole reply came; class, code and `was_sent` say why and whether it may have been billed.
        """
        exchange = Exchange(body, self._deadlines, self._watch, n_choices=n_choices)
        exchange.begin()
        try:
            try:
                intake = await self._exchange(exchange, headers)
            except asyncio.CancelledError:
                if not exchange.take_back_cancel():
                    raise
                return self._finish_late(exchange)
            finally:
                exchange.end()
            return self._finish(exchange, intake)
        except ApiError as error:
            error.was_sent_again = exchange.is_sent_again
            raise

    async def _exchange(self, exchange: Exchange, headers: RawHeaders) -> Intake:
        """Send a body and read its reply; over another connection where the first was dead already."""
        try:
            return await self._exchange_once(exchange, headers)
        except ENGINE_ERRORS as error:
            if not exchange.met_dead_connection or is_garbled(error):
                raise self._translate(error, exchange) from None
        exchange.restart()
        try:
            return await self._exchange_once(exchange, headers)
        except ENGINE_ERRORS as error:
            raise self._translate(error, exchange) from None

    async def _exchange_once(self, exchange: Exchange, headers: RawHeaders) -> Intake:
        opened = await self._engine.open(exchange, headers)
        try:
            intake = exchange.note_headers(opened.status, self._failure_redactor.redact_values(opened.headers))
            try:
                await _read_body(opened, exchange, intake)
            except ENGINE_ERRORS as error:
                reason = str(error) if isinstance(error, httpx.RemoteProtocolError) else None
                if not intake.cut(reason):
                    raise
        finally:
            await opened.aclose()
        return intake

    def mask(self, completion: Completion) -> Completion:
        """Return a completion whose texts hold no secret: one that came in parts is whole only now, put together."""
        texts = (completion.output, completion.refusal, completion.reasoning)
        output, refusal, reasoning = masked = tuple(text and self._redactor.redact(text) for text in texts)
        if masked == texts:
            return completion
        flags = tuple(dict.fromkeys((*completion.flags, "redacted")))
        return replace(completion, output=output, refusal=refusal, reasoning=reasoning, flags=flags)

    def _finish(self, exchange: Exchange, intake: Intake) -> Reply:
        """Return the reply, now that nothing more of it comes.

        Raises:
            ApiError: It is damaged, too large or incomplete.
        """
        try:
            received = intake.end()
        except IntakeError as failure:
            raise self._make_intake_error(failure, exchange, intake) from None
        redactor = self._redactor if 200 <= intake.status < 300 else self._failure_redactor
        body = redactor.redact_bytes(received)
        return Reply(
            status=intake.status,
            headers=intake.headers,
            body=body,
            evidence=intake.make_evidence(self._failure_redactor) if intake.has_failed else None,
            latency_s=exchange.last_byte_s if intake.is_stream else exchange.elapsed_s(),
            first_byte_s=exchange.first_byte_s,
            first_token_s=exchange.first_token_s,
            bytes_received=intake.bytes_received,
            is_redacted=body is not received,
            flags=(*intake.flags, "sent_again") if exchange.is_sent_again else intake.flags,
            said=intake.write_said(self._redactor) if intake.has_failed else None,
        )

    def _finish_late(self, exchange: Exchange) -> Reply:
        """Return the reply of an exchange that a deadline ended: a stream may have lacked nothing but its end.

        Raises:
            ApiError: It did lack something.
        """
        intake = exchange.intake
        code = exchange.name_passed_deadline()
        if intake is None:
            text = f"no reply from {self._url.host} in time ({code})"
            raise TimedOutError(code, text, was_sent=exchange.was_sent)
        if intake.is_complete:
            intake.cut()
            return self._finish(exchange, intake)
        text = f"no whole reply from {self._url.host} in time ({code})"
        raise TimedOutError(code, text, **self._make_evidence(exchange, intake))

    def _make_intake_error(self, failure: IntakeError, exchange: Exchange, intake: Intake) -> ApiError:
        evidence = self._make_evidence(exchange, intake)
        if failure.code is ErrorCode.BODY_TOO_LARGE:
            return MalformedReplyError(failure.code, failure.message, **evidence)
        message = excerpt(self._failure_redactor.redact(failure.message))
        is_gap = failure.code is ErrorCode.STREAM_INCOMPLETE
        text = (
            f"HTTP {intake.status}, but {message}" if is_gap else f"HTTP {intake.status} with a damaged body: {message}"
        )
        return DamagedReplyError(failure.code, text, **evidence)

    def _make_evidence(self, exchange: Exchange, intake: Intake) -> Evidence:
        evidence = make_evidence(intake.status, intake.headers, intake.make_evidence(self._failure_redactor))
        evidence["bytes_received"] = intake.bytes_received
        evidence["first_token_s"] = exchange.first_token_s
        evidence["said"] = intake.write_said(self._redactor)
        return evidence

    def _translate(self, error: Exception, exchange: Exchange) -> ApiError:
        if isinstance(error, NEVER_SENT):
            exchange.note_unsent()
        fault = describe_fault(error, exchange)
        port = f":{self._url.port}" if self._url.port else ""
        text = self._failure_redactor.redact(f"{self._url.host}{port}: {fault.message}")
        return fault.error_class(fault.code, text, http_status=exchange.status, was_sent=exchange.was_sent)


async def _read_body(opened: Opened, exchange: Exchange, intake: Intake) -> None:
    """Read until nothing more of the reply is of interest."""
    while (chunk := await opened.read()) is not None:
        was_done = intake.is_done
        if not was_done:
            exchange.note_chunk()
        intake.feed(chunk)
        if intake.is_stream:
            if intake.has_token:
                exchange.note_token()
            if intake.is_done and not was_done:
                exchange.note_done()
        if intake.is_enough:
            return


def _open_engine(target: Target, deadlines: Deadlines, *, inner: httpx.AsyncBaseTransport | None = None) -> Engine:
    """Return the engine that a target asks for: the fast one unless it says `transport: httpx`.

    Args:
        target: Where to.
        deadlines: Limits of each attempt.
        inner: An engine of httpx's interface to use instead.
    """
    url = httpx.URL(target.url)
    headers = _make_headers(target, url)
    if inner is None and target.options.transport != "httpx":
        return FastEngine(url=str(url), headers=headers, deadlines=deadlines, keep_alive_s=KEEP_ALIVE_S)
    inner = inner or HttpxEngine(is_encrypted=target.is_encrypted, keep_alive_s=KEEP_ALIVE_S)
    return HttpxSeam(inner, url=url, headers=headers, timeouts=deadlines.engine_timeouts)


def make_hint_headers(hint: SimulatorHint) -> RawHeaders:
    """Return the headers that tell a simulator the right answer; never to be sent to anyone else."""
    values = {b"x-simulator-answer": hint.answer, b"x-simulator-sample": hint.sample_id}
    values[b"x-simulator-repeat"] = str(hint.repeat)
    return [(name, base64.urlsafe_b64encode(value.encode("utf-8", "surrogatepass"))) for name, value in values.items()]


def _make_headers(target: Target, url: httpx.URL) -> RawHeaders:
    """Return the headers of every request to a target; the job's own replace ours, whatever their case."""
    headers = {
        "Host": url.netloc.decode("ascii"),
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "Content-Type": "application/json",
        "User-Agent": f"evalrun/{__version__}",
    }
    if target.api_key is not None:
        headers["Authorization"] = f"Bearer {target.api_key}"
    by_name: dict[str, tuple[bytes, bytes]] = {}
    for name, value in [*headers.items(), *target.options.headers.items(), *target.headers.items()]:
        by_name[name.lower()] = (name.encode(), value.encode())
    return list(by_name.values())
