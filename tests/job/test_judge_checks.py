"""What a job says of its judges is checked before anything is sent."""

from pathlib import Path

import pytest

from evalrun.errors import ConfigError
from evalrun.job.config import LoadedJob, load_job

JOB = """\
endpoints: {{e: {{base_url: "http://127.0.0.1:9/v1"}}}}
models:
  - {{name: gpt}}
  - {{name: critic, role: {role}}}
prompts: [{{name: p, user: "{{{{ q }}}}"}}]
samples: [{{id: a, q: one}}]
graders:
  - {grader}
"""
GOOD = 'type: judge, model: critic, rubric: "Is {{ q }} answered?"'


def load(folder: Path, *, keys: str = GOOD, role: str = "judge", replaced: tuple[str, str] = ("", "")) -> LoadedJob:
    """Load a job with one grader."""
    path = folder / "job.yaml"
    text = JOB.format(role=role, grader="{" + keys + "}")
    path.write_text(text.replace(*replaced) if replaced[0] else text, encoding="utf-8")
    return load_job(path, environ={})


def fail(folder: Path, **changes: object) -> str:
    """Return every problem of a job that cannot be loaded."""
    with pytest.raises(ConfigError) as caught:
        load(folder, **changes)  # type: ignore[arg-type]
    return "\n".join(problem.render() for problem in caught.value.problems)


def test_judge_with_every_key_is_taken(tmp_path: Path) -> None:
    """All keys of a judge together."""
    more = "reference: x, choices: {good: 1, fair: 0.5}, votes: 3, structured: false, params: {max_tokens: 50}"
    loaded = load(tmp_path, keys=f"{GOOD}, {more}, threshold: 0.6, weight: 2, not: true, hard: true, metric: tone")
    assert [model.role for model in loaded.job.models] == ["candidate", "judge"]
    assert not [warning for warning in loaded.warnings if "judge" in warning.message]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            'type: judge, model: critc, rubric: "r"',
            "job.yaml:8:19: there is no model 'critc'\n    did you mean `critic`?",
        ),
        ('type: judge, rubric: "r"', "`model` is missing in graders[0]"),
        ("type: judge, model: critic", "`rubric` is missing in graders[0]"),
        ('type: judge, model: critic, rubric: ""', "`graders[0].rubric` must not be empty"),
        ('type: judge, model: critic, rubric: "{{ q"', "job.yaml:8:34: the template does not compile"),
        ('type: judge, model: critic, rubrik: "r"', "unknown key `rubrik` in graders[0]\n    did you mean `rubric`?"),
        (f"{GOOD}, pairwise: true", "unknown key `pairwise` in graders[0]"),
        (f"{GOOD}, choices: {{good: 1}}", "leaves nothing to choose"),
        (f"{GOOD}, choices: {{good: 1, bad: 1}}", "gives every label the same score"),
        (f"{GOOD}, choices: {{good: 2, bad: 0}}", "must be at most 1"),
        (f"{GOOD}, choices: [good, bad]", "must be a mapping"),
        (f"{GOOD}, votes: 0", "`graders[0].votes` must be at least 1, got 0"),
        (f"{GOOD}, votes: 2.5", "must be a whole number"),
        (f"{GOOD}, structured: maybe", "structured"),
        (f"{GOOD}, params: {{model: x}}", "`params` of a judge may not set `model`"),
        (f"{GOOD}, params: {{n: 2}}", "`votes` says how often the judge is asked"),
        (f"{GOOD}, params: {{response_format: {{type: text}}}}", "`structured` says whether"),
        (f"{GOOD}, params: {{temperature: hot}}", "graders[0].params.temperature"),
    ],
)
def test_wrong_judge_is_refused_with_its_place(tmp_path: Path, keys: str, message: str) -> None:
    """Each mistake in a judge is told where it stands, and what was meant."""
    told = fail(tmp_path, keys=keys)
    assert message in told
    assert "job.yaml:8" in told


def test_job_whose_models_are_all_judges_is_refused(tmp_path: Path) -> None:
    """Somebody must be asked the samples."""
    told = fail(tmp_path, replaced=("{name: gpt}", "{name: gpt, role: judge}"))
    assert "every model of the job is a judge: nobody is asked" in told


def test_unknown_role_is_refused(tmp_path: Path) -> None:
    """A role is one of the two words."""
    assert "`models[1].role` must be 'candidate' or 'judge', got text 'judg'" in fail(tmp_path, role="judg")


def test_judge_that_nobody_asks_is_told(tmp_path: Path) -> None:
    """A judge that no grader names is worth a warning: it does nothing."""
    loaded = load(tmp_path, keys='type: contains, value: "x"')
    assert "no grader asks the judge 'critic'" in [warning.message for warning in loaded.warnings]


def test_judge_of_an_inline_sample_is_checked_as_well(tmp_path: Path) -> None:
    """A judge in a sample that the job holds must name a model that is there."""
    told = fail(
        tmp_path,
        keys='type: contains, value: "x"',
        replaced=("{id: a, q: one}", "{id: a, q: one, graders: [{type: judge, model: nobody, rubric: r}]}"),
    )
    assert "there is no model 'nobody'" in told
