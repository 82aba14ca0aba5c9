"""One quirk of one request, and how the tables of quirks read and rewrite a draft.

Tables map ids to functions of two kinds. An `Edit` changes a draft's values, a `Bend` a script's bytes, framing or
ending; each returns whether it could: a quirk that makes no sense for a reply leaves it as it is. Nothing here waits or
reads a clock, and every draw starts from the request.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evalrun.simulator import draws
from evalrun.simulator.script import Draft, Script


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirk:
    """A quirk chosen for one request."""

    id: str
    """`Q01` to `Q60`."""
    variant: str | None = None
    """One of the quirk's own; None when it has none."""
    number: float | None = None
    """What the chooser set; None = the default."""
    body: Mapping[str, Any]
    """The request's."""
    digest: bytes
    """Names the request: every draw starts here."""

    @property
    def label(self) -> str:
        """The id, with the variant if there is one."""
        return self.id if self.variant is None else f"{self.id}:{self.variant}"

    def draw(self, purpose: str, index: int = 0) -> float:
        """Return a number in (0, 1), the same for the same request and purpose."""
        return draws.draw_uniform(self.digest, f"{self.id} {purpose}", index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a bend may look at beside the script."""

    draft: Draft
    """Edited; its chunks are those that the script's pieces were written from."""
    now: datetime
    """UTC."""


Edit = Callable[[Draft, Quirk], bool]
"""Changes a draft's values in place; False when the quirk makes no sense for it, which is then as it was."""
Bend = Callable[[Script, Quirk, Scene], bool]
"""Changes a script in place; False when the quirk makes no sense for it, which is then as it was."""


def has_answer(draft: Draft) -> bool:
    """Tell whether the draft is still a reply with choices, not an error or something else."""
    return draft.status == 200 and isinstance(draft.completion, dict) and bool(draft.completion.get("choices"))


def scan_parts(draft: Draft) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the choices that will be sent, with the key of their text: of the chunks, or of the whole completion."""
    if draft.chunks is None:
        yield from ((choice, "message") for choice in draft.completion["choices"])
        return
    for chunk in draft.chunks:
        yield from ((choice, "delta") for choice in chunk.get("choices") or ())


def make_choice(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    """Return one choice of a chunk."""
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def find_finish(draft: Draft) -> int | None:
    """Return the place of the first chunk that ends a choice; None when there is none."""
    for place, chunk in enumerate(draft.chunks or ()):
        if any(choice.get("finish_reason") is not None for choice in chunk.get("choices") or ()):
            return place
    return None
