"""How the command that goes on with a run is called where neither the job's file nor the run is known.

Lanes, rows, budgets and the gate write it into their sentences; whoever shows these and knows both puts the whole
command in its place.
"""

from typing import Final

RESUME_COMMAND: Final = "evalrun run JOB --resume"
MARKED_RESUME_COMMAND: Final = f"`{RESUME_COMMAND}`"
"""The same between the backticks that mark code: so it stands in every sentence of evalrun's own."""
