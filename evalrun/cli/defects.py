"""What is said of an error that nobody foresaw: versions and traceback, in a file to send.

An exception enters; the file is written and the message for the terminal leaves. Loaded with each command, before
anything can have gone wrong, and not for `--help` and `--version`.
"""

import os
import platform
import tempfile
import traceback

from evalrun import __version__


def report_defect(error: BaseException) -> str:
    """Write versions and traceback to a file and return what to tell the user; where no file can be, tell all."""
    text = "".join(traceback.format_exception(error))
    # `platform.platform()` opens files, which a process that ran out of them cannot.
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    report = f"evalrun {__version__}, Python {platform.python_version()}, {system}\n\n{text}"
    head = f"evalrun failed unexpectedly: {type(error).__name__}: {error}\n"
    head += "    this is a defect of evalrun; please report"
    try:
        handle, name = tempfile.mkstemp(prefix="evalrun-error-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(report)
    except OSError as no_file:  # Out of files or of space: the very thing that may have gone wrong.
        return f"{head} it with what follows ({no_file.strerror or no_file} kept it from a file):\n\n{report}"
    return f"{head} it with {name}"
