"""Which quirks befall a request, and what they make of its reply.

Enters: a request with its profile and header, then the draft of a good reply. Leaves: the script of a bent one, with a
header `x-simulator-quirk` that names what was done to it. Kept always: same request and attempt, same quirks; a reply
that none were chosen for has the bytes that it would have without this module.
"""

import copy
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from evalrun.options import ProfileOptions
from evalrun.quirk_names import QUIRK_NAMES, QuirkChoice, fits, parse_quirk
from evalrun.simulator import draws
from evalrun.simulator.quirks import contents, events, framing, layout, replacements, usage
from evalrun.simulator.quirks.quirk import Bend, Edit, Quirk, Scene, has_answer
from evalrun.simulator.refusal import Refusal
from evalrun.simulator.replies import ChatRequest
from evalrun.simulator.script import Draft, Piece, Script, write_script
from evalrun.simulator.streaming import make_chunks

QUIRK_HEADER: Final = "X-Simulator-Quirk"
"""In a request: the quirks that shall befall it, whatever the profile says, separated by commas; empty or `none` for no
quirk at all. In a reply: those that did; `none` when the chosen ones made no sense for it."""

REPLACEMENTS: Final[Mapping[str, Edit]] = replacements.REPLACEMENTS
"""What sends something else than the reply; first, for nothing of the reply is left to change."""
TEXTS: Final[Mapping[str, Edit]] = {**contents.TEXTS, **usage.TEXTS}
"""What changes the whole completion, which is cut into chunks afterwards if it is streamed."""
EDITS: Final[Mapping[str, Edit]] = {**contents.EDITS, **usage.EDITS, **layout.EDITS}
"""What changes how the completion or its chunks are laid out."""
HEADERS: Final[Mapping[str, Edit]] = replacements.HEADERS
"""What adds headers, to errors too."""
BENDS: Final[Mapping[str, Bend]] = {
    **replacements.BENDS, **contents.BENDS, **usage.BENDS, **events.BENDS, **framing.BENDS
}  # fmt: skip
"""What changes bytes, last: within events, then of events, then of bodies, then of connections. A quirk may edit and
bend, and bends only if it could edit."""

_REPLY_HEADER: Final = QUIRK_HEADER.lower()
_NONE: Final = "none"
_EDITED: Final = frozenset((*REPLACEMENTS, *TEXTS, *EDITS, *HEADERS))


def choose_quirks(
    asked: ChatRequest, profile: ProfileOptions, header: str | None, attempt: int
) -> tuple[Quirk, ...] | Refusal:
    """Return the quirks of one attempt.

    Args:
        asked: The request; its digest decides every draw.
        profile: Its quirks befall the share of attempts that it gives each.
        header: The request's own `X-Simulator-Quirk`, in place of the profile's; None when it has none.
        attempt: 0-based: another attempt, another draw.

    Returns:
        The quirks, or the refusal of a header that names an unknown one.
    """
    if header is None and not profile.quirks:
        return ()
    if header is None:
        names = [
            text
            for text, rate in profile.quirks.items()
            if draws.draw_uniform(asked.digest, f"quirk {text}", attempt) < rate
        ]
    else:
        names = [name for name in map(str.strip, header.split(",")) if name and name.casefold() != _NONE]
    try:
        return tuple(_make_quirk(parse_quirk(name), asked, attempt) for name in names)
    except ValueError as error:
        return Refusal(message=f"{QUIRK_HEADER}: {error}.", param=QUIRK_HEADER, code="unknown_quirk")


def bend(draft: Draft, quirks: Sequence[Quirk], *, now: datetime | None = None) -> Script:
    """Return the script of a draft that quirks have changed.

    The draft is edited in place, its billed tokens too: bill them after this call. A quirk that makes no sense for the
    reply (a stream's for one that is not streamed, log probabilities where none were asked for) is left out.

    Args:
        draft: A good reply; not to be used for another script.
        quirks: In any order: each table has its own, in which they go together.
        now: UTC; None reads the clock, which dates a Retry-After and nothing else.
    """
    if not quirks:
        return write_script(draft)
    # Parts of a draft may be constants that all replies share, or be shared between its chunks.
    draft.completion, draft.chunks = copy.deepcopy(draft.completion), copy.deepcopy(draft.chunks)
    draft.headers = dict(draft.headers)
    done = _edit(draft, quirks)
    script = write_script(draft)
    if isinstance(draft.completion, str):
        script.pieces = [Piece(data=draft.completion.encode())]
    scene = Scene(draft=draft, now=now or datetime.now(UTC))
    for quirk in _sort_for(BENDS, quirks):
        could_edit = quirk in done or quirk.id not in _EDITED
        # Nothing is left to bend once raw bytes, or none, stand for the whole response.
        if could_edit and script.framing != "raw" and _fits(quirk, draft) and BENDS[quirk.id](script, quirk, scene):
            done.append(quirk)
    names = dict.fromkeys(quirk.label for quirk in quirks if quirk in done)
    script.headers.append((_REPLY_HEADER, ", ".join(names) or _NONE))
    return script


def is_bent(script: Script) -> bool:
    """Tell whether any of the chosen quirks changed the script."""
    return any(name == _REPLY_HEADER and value != _NONE for name, value in script.headers)


def _edit(draft: Draft, quirks: Sequence[Quirk]) -> list[Quirk]:
    """Change the draft's values; return the quirks that could."""
    done = _apply(REPLACEMENTS, draft, quirks)
    texts = _apply(TEXTS, draft, quirks)
    if texts and draft.chunks:
        first = draft.chunks[0]
        chunks = make_chunks(
            draft.completion,
            include_usage="usage" in first,
            has_obfuscation="obfuscation" in first,
            is_continuous=first.get("usage") is not None,
        )
        draft.chunks = copy.deepcopy(chunks)
    return [*done, *texts, *_apply(EDITS, draft, quirks), *_apply(HEADERS, draft, quirks)]


def _apply(table: Mapping[str, Edit], draft: Draft, quirks: Sequence[Quirk]) -> list[Quirk]:
    """Apply the quirks of one table; return those that could. An error, or a page, is left as it is."""
    done = []
    for quirk in _sort_for(table, quirks):
        is_open = has_answer(draft) or table is HEADERS
        if is_open and _fits(quirk, draft) and table[quirk.id](draft, quirk):
            done.append(quirk)
    return done


def _sort_for(table: Mapping[str, object], quirks: Sequence[Quirk]) -> list[Quirk]:
    """Return the quirks of a table in the table's order, in which they go together; the order of choice is none."""
    order = {quirk_id: place for place, quirk_id in enumerate(table)}
    return sorted((quirk for quirk in quirks if quirk.id in order), key=lambda quirk: order[quirk.id])


def _fits(quirk: Quirk, draft: Draft) -> bool:
    """Tell whether quirk and variant make sense for a reply as it is now, streamed or not."""
    known = QUIRK_NAMES[quirk.id]
    modes = (known.mode, known.variants.get(quirk.variant or "", "both"))
    return all(fits(mode, is_stream=draft.is_stream) for mode in modes)


def _make_quirk(choice: QuirkChoice, asked: ChatRequest, attempt: int) -> Quirk:
    """Return a choice for one request; where it leaves the variant open, the request picks one that fits it."""
    variant = choice.variant
    variants = QUIRK_NAMES[choice.id].variants
    if variant is None and variants:
        fitting = [name for name, mode in variants.items() if fits(mode, is_stream=asked.is_stream)] or list(variants)
        draw = draws.draw_uniform(asked.digest, f"variant {choice.id}", attempt)
        variant = fitting[int(draw * len(fitting))]
    return Quirk(id=choice.id, variant=variant, number=choice.number, body=asked.body, digest=asked.digest)
