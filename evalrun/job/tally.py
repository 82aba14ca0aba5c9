"""Problems of many rows, told once each: the first place, and how many more there are."""

from evalrun.errors import AuthorError, DatasetError, Problem, PromptError

MAX_LISTED = 20
"""Problems that are listed; the rest are counted."""


class ProblemTally:
    """Collects problems of rows, equal ones together, in memory that does not grow with the dataset."""

    def __init__(self) -> None:
        """Start without problems."""
        self._groups: dict[tuple[str, str | None], _Group] = {}
        self._n_unlisted = 0
        self._is_prompt_only = True

    def __bool__(self) -> bool:
        """True once there is a problem."""
        return bool(self._groups)

    def add(
        self, problem: Problem, *, sample_id: str | None = None, place: str | None = None, is_prompt: bool = False
    ) -> None:
        """Note a problem.

        Args:
            problem: What is wrong; its `where` may be the template's place.
            sample_id: The sample it was found with; None when the row is no sample.
            place: `file:line` of that row.
            is_prompt: Whether a template is to be mended, rather than the dataset.
        """
        self._is_prompt_only = self._is_prompt_only and is_prompt
        own_place = problem.where if problem.where != place else None
        key = (problem.message, own_place if is_prompt else None)
        group = self._groups.get(key)
        if group is not None:
            group.n += 1
        elif len(self._groups) < MAX_LISTED:
            self._groups[key] = _Group(problem, sample_id, place)
        else:
            self._n_unlisted += 1

    def make_error(self) -> AuthorError:
        """Return one error with every problem; at least one was added."""
        return (PromptError if self._is_prompt_only else DatasetError)(self.list_problems())

    def list_problems(self) -> list[Problem]:
        """Return what was added, equal ones as one, in the order in which they came first."""
        problems = [group.render() for group in self._groups.values()]
        if self._n_unlisted:
            problems.append(Problem(message=f"… and {self._n_unlisted:,} more problems"))
        return problems


class _Group:
    """Equal problems of several rows."""

    __slots__ = ("_place", "_problem", "_sample_id", "n")

    def __init__(self, problem: Problem, sample_id: str | None, place: str | None) -> None:
        self._problem = problem
        self._sample_id = sample_id
        self._place = place
        self.n = 1

    def render(self) -> Problem:
        problem, more = self._problem, f" and {self.n - 1:,} more" if self.n > 1 else ""
        where = problem.where or self._place
        if self._sample_id is None or where == self._place:
            suffix = f" (this row{more})" if more else ""
        else:
            suffix = f" (sample {self._sample_id[:60]!r}, {self._place}{more})"
        return Problem(message=problem.message + suffix, where=where, hint=problem.hint)
