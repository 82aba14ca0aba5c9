"""The big account: `python -m tests.accounts --requests 100000` prints its figures, and exits with 1 when it is off."""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from tests.accounts.books import Account, Books, Share, check_books
from tests.accounts.site import TARGETS
from tests.accounts.story import tell_story

MAX_SHOWN = 30

_HEAD = ("model", "requests", "billed", "tokens", "USD billed", "reported", "USD reported", "off tokens", "off USD")
_APART = ("model", "what", "in tables", "billed", "tokens", "tokens billed", "USD", "USD billed", "USD unknown")


def main() -> int:
    """Run the story at the size asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.accounts", description=__doc__)
    parser.add_argument("--requests", type=int, default=1300, help="rows of the job, about")
    parser.add_argument("--folder", type=Path, help="an empty folder to keep it in; default: a temporary one")
    options = parser.parse_args()
    n_samples = max(1, round(options.requests / len(TARGETS)))
    with tempfile.TemporaryDirectory() as folder:
        story = tell_story(options.folder or Path(folder), n_samples)
        books = check_books(story)
    for line in render(books):
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"\nthree calls took {story.took_s:.0f} s; violations: {len(books.violations)}\n")
    return 1 if books.violations else 0


def render(books: Books) -> Iterator[str]:
    """Yield the lines of two tables: each model's account, and what is not reported, apart."""
    total = Account()
    for account in books.accounts.values():
        total.take(account)
    accounts = {**books.accounts, "all": total}
    yield from _align([_HEAD, *(_show_account(name, account) for name, account in accounts.items())])
    yield ""
    yield from _align([_APART, *(line for name, account in accounts.items() for line in _show_apart(name, account))])
    yield from books.violations[:MAX_SHOWN]


def _show_account(name: str, account: Account) -> tuple[str, ...]:
    ledger, reported = account.ledger, account.reported
    return (
        name, f"{account.n_requests:,}", f"{ledger.n_billed:,}", f"{ledger.billed_tokens:,}",
        _show_usd(ledger.billed_usd), f"{reported.n:,}", _show_usd(reported.usd), f"{account.off_tokens:,}",
        f"{float(account.off_usd):.1e}",
    )  # fmt: skip


def _show_apart(name: str, account: Account) -> Iterator[tuple[str, ...]]:
    shares: dict[str, Share] = {
        "unreported": account.unreported, "lost": account.lost, "unseen": account.unseen, "reused": account.reused,
    }  # fmt: skip
    for what, share in shares.items():
        if share.n or share.n_billed:
            yield (
                name, what, f"{share.n:,}", f"{share.n_billed:,}", f"{share.tokens:,}", f"{share.billed_tokens:,}",
                _show_usd(share.usd), _show_usd(share.billed_usd), f"{share.n_unknown:,}",
            )  # fmt: skip


def _show_usd(usd: Fraction) -> str:
    return f"{float(usd):.9f}"


def _align(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


if __name__ == "__main__":
    sys.exit(main())
