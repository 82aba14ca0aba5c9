"""Ask it: the wire, retries, lanes and the transport seam."""

import sys

# httpx loads its own command line, and with it rich and pygments, wherever these happen to be installed: an eighth of
# what a run loads before its first request. It does without where it finds none, and here it finds none; for a process
# that has loaded httpx before nothing changes.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
