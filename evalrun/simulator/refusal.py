"""The simulator's no: why a request is not answered, in the shape of OpenAI's errors.

Enters: the words of whoever refuses. Leaves: the JSON body of an error, and its status.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not answered; becomes an error body."""

    message: str
    param: str | None = None
    """Path of the offending parameter; None when none can be named."""
    code: str | None = None
    """OpenAI's code; None where it gives none."""
    status: int = 400
    """HTTP status."""
    kind: str = "invalid_request_error"
    """The error's `type`."""

    def to_error(self) -> dict[str, Any]:
        """Return the JSON body."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}
