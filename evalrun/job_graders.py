"""The graders of a job, for the check before the first request and for the closing after the last one.

A loaded job enters, its graders leave. Apart from both, so that a check loads nothing of what tables and reports need.
"""

from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.analysis.graders.python_place import PythonPlace
from evalrun.job.config import LoadedJob


def make_grader_set(loaded: LoadedJob) -> GraderSet:
    """Return the graders of a job, compiled."""
    job = loaded.job
    endpoints = job.endpoints.values()
    secrets = {name for options in endpoints for name in (options.api_key_env, *options.header_env.values()) if name}
    return GraderSet(
        job.graders,
        job.defaults.graders,
        vars_=job.vars,
        where=loaded.where,
        inline_samples=job.samples,
        place=PythonPlace(folder=loaded.folder, hidden=frozenset(secrets)),
    )
