"""What can go wrong: one tree, split by who must act.

::

    EvalrunError
    ├── AuthorError              the author of the job acts; nothing was sent      exit 2
    │   ├── UsageError           a command line, a RUN that is not there, an empty selection
    │   ├── ConfigError          the job file
    │   ├── DatasetError         a dataset file or a row of it
    │   └── PromptError          a template, on its own or against a row
    ├── ApiError                 one attempt failed; becomes data, never ends a run
    │   ├── TransientError       asking again may help
    │   │   ├── RateLimitedError · ServerFaultError · ConnectionFaultError · TimedOutError · DamagedReplyError
    │   └── TerminalError        asking again does not help
    │       └── AuthRefusedError · BadRequestError · ContentRefusedError · MalformedReplyError
    ├── GraderFaultError         a grader could not decide; the row is ungraded, never wrong
    ├── StoreError               the disk                                          exit 5 (2 before sending)
    │   ├── FolderBusyError      another process holds the run folder              exit 2
    │   ├── SchemaMismatchError  a file of another version, or not one of ours
    │   ├── InputChangedError    a file of the job changed while its run was alive
    │   ├── ManifestDamagedError run.json is not what evalrun writes; the journal still holds the run
    │   └── JournalDamagedError  good records follow a bad one
    └── InternalError            a defect of evalrun                               exit 5

A message says what happened, with the value, where, and what to do. Each class carries a `slug`; `docs/messages.md`
has one paragraph for each slug.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing an author must mend, ready to be printed."""

    message: str
    """What is wrong, with the offending value."""
    where: str | None = None
    """`file:line:column`, `file:line` or a key path; None when no place can be named."""
    hint: str | None = None
    """What to type next; None when the message already says it."""

    def render(self) -> str:
        """Return the problem as one to two lines of text: `where: message`, then the hint."""
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n    {self.hint}" if self.hint else head


class EvalrunError(Exception):
    """Root of everything evalrun raises on purpose."""

    slug = "error"


class AuthorError(EvalrunError):
    """Something the author of a job must mend before anything is sent.

    Args:
        problems: One message, or every problem found; at least one.
        where: Place of a single message.
        hint: Next step for a single message.
    """

    slug = "author"

    def __init__(self, problems: str | Sequence[Problem], *, where: str | None = None, hint: str | None = None) -> None:
        """Keep every problem; a single message is wrapped."""
        if isinstance(problems, str):
            problems = [Problem(message=problems, where=where, hint=hint)]
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.render() for problem in self.problems))


class UsageError(AuthorError):
    """The command line asks for something that is not there."""

    slug = "usage"


class ConfigError(AuthorError):
    """The job file cannot be used."""

    slug = "config"


class DatasetError(AuthorError):
    """A dataset file, or a row of it, cannot be used."""

    slug = "dataset"


class PromptError(AuthorError):
    """A template is wrong, or does not fit a row."""

    slug = "prompt"


class ApiError(EvalrunError):
    """One attempt failed. Caught by the dispatcher, which turns it into an Attempt and an Outcome.

    Args:
        code: A member of `records.ErrorCode`, as its value.
        message: What happened, in the server's words where it had some.
        http_status: Status of the reply; None when there was none.
        retry_after_s: Seconds the server asked to wait; None when it did not.
        should_retry: The server's own `x-should-retry`; None when absent.
        body: First bytes of the reply as evidence, already redacted; None when there was no reply.
        request_id: The server's id of the exchange; None when it named none.
        was_sent: True when the request body had left, so that it may have been billed.
        bytes_received: Size of the reply body as received, in bytes.
        first_token_s: Seconds from send to the first token of a streamed reply; None when none came.
        said: What a stream had said until it failed, as the JSON of a completion, redacted; None of anything else.
    """

    slug = "api"

    def __init__(  # noqa: PLR0913 - the facts of one exchange, all by name
        self,
        code: str,
        message: str,
        *,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        body: bytes | None = None,
        request_id: str | None = None,
        was_sent: bool = True,
        bytes_received: int = 0,
        first_token_s: float | None = None,
        said: bytes | None = None,
    ) -> None:
        """Keep the facts of the failed exchange."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.body = body
        self.request_id = request_id
        self.was_sent = was_sent
        self.bytes_received = bytes_received
        self.first_token_s = first_token_s
        self.said = said
        self.was_sent_again = False
        """Whether the request had left before, over a connection that ended without a reply; set by the transport."""


class TransientError(ApiError):
    """Asking again may help."""

    slug = "api-transient"


class RateLimitedError(TransientError):
    """429 without a billing code: the lane waits."""

    slug = "api-rate-limited"


class ServerFaultError(TransientError):
    """5xx, 408, 409, 425, overload."""

    slug = "api-server-fault"


class ConnectionFaultError(TransientError):
    """No reply, or a reply cut off by the connection."""

    slug = "api-connection"


class TimedOutError(TransientError):
    """A deadline passed; the code says which."""

    slug = "api-timed-out"


class DamagedReplyError(TransientError):
    """A 200 whose body is not a completion: cut off, HTML, no JSON, no choices."""

    slug = "api-damaged-reply"


class TerminalError(ApiError):
    """Asking again does not help."""

    slug = "api-terminal"


class AuthRefusedError(TerminalError):
    """401, 403, billing or an unknown model: the lane stops, its rows stay pending."""

    slug = "api-auth-refused"


class BadRequestError(TerminalError):
    """The server refuses this request: 400, 413, 415, 422."""

    slug = "api-bad-request"


class ContentRefusedError(TerminalError):
    """A moderation filter refused prompt or answer: status `filtered`."""

    slug = "api-content-refused"


class MalformedReplyError(TerminalError):
    """A reply that will not get better by asking again: redirect, over the size cap."""

    slug = "api-malformed-reply"


class GraderFaultError(EvalrunError):
    """A grader could not decide. The row is ungraded, never wrong.

    Args:
        code: `grader_error` or `grader_timeout`.
        message: What stopped the grader.
    """

    slug = "grader"

    def __init__(self, code: str, message: str) -> None:
        """Keep the code that goes into grades.parquet."""
        super().__init__(message)
        self.code = code


class StoreError(EvalrunError):
    """The disk refused, or a file is not what it should be."""

    slug = "store"


class FolderBusyError(StoreError):
    """Another process holds the run folder."""

    slug = "store-busy"


class SchemaMismatchError(StoreError):
    """A file was written by another version, or is not one of ours."""

    slug = "store-schema"


class InputChangedError(StoreError):
    """A file that the job reads changed while the run was under way; what was answered is in the journal."""

    slug = "input-changed"


class ManifestDamagedError(StoreError):
    """run.json is not what evalrun writes; the journal still holds the run."""

    slug = "store-manifest-damaged"


class JournalDamagedError(StoreError):
    """The journal is damaged before its tail: good records follow a bad one."""

    slug = "store-journal-damaged"


class InternalError(EvalrunError):
    """A defect of evalrun itself."""

    slug = "internal"
