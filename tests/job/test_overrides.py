"""`--set` and `--var`."""

import pytest

from tests.job.conftest import BODY, SAMPLE, fail, load


@pytest.mark.parametrize(
    ("override", "keys", "value"),
    [
        ("repeats=3", ("repeats",), 3),
        ("models[careful].params.temperature=0", ("models", 0, "params", "temperature"), 0),
        ("models[0].params.stop=[a, b]", ("models", 0, "params", "stop"), ["a", "b"]),
        ("models.careful.params.x=no", ("models", 0, "params", "x"), "no"),
        ("endpoints[demo].simulator.seed=7", ("endpoints", "demo", "simulator", "seed"), 7),
        ("endpoints[*].concurrency=5", ("endpoints", "demo", "concurrency"), 5),
        ("models[*].params.seed=5", ("models", 0, "params", "seed"), 5),
        ("vars.tone=casual = warm", ("vars", "tone"), "casual = warm"),
    ],
)
def test_set_changes_one_value(override: str, keys: tuple[str | int, ...], value: object) -> None:
    """A path leads through keys, names and indexes; the value is YAML."""
    node: object = load(BODY + SAMPLE, overrides=[override]).raw
    for key in keys:
        node = node[key]  # type: ignore[index]
    assert node == value


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("models[carefull].params.x=1", "--set models[carefull].params.x: `models` has no item `carefull`"),
        ("repeats", "--set repeats: an override is PATH=VALUE"),
        ("repeats.x=1", None),
        ("repeats=0", "--set repeats: `repeats` must be at least 1, got 0"),
        ("concurency=1", "--set concurency: unknown key `concurency`"),
        ("vars.a=[1", "--set vars.a: not valid YAML: "),
        ("graders[*].weight=1", "--set graders[*].weight: `graders` has no items for `[*]`"),
        ("a]b=1", "--set a]b: the path cannot be read at ']b=1'"),
    ],
)
def test_set_names_itself_as_the_place_of_an_error(override: str, problem: str | None) -> None:
    """What an override breaks is reported at the override."""
    text = BODY + SAMPLE + "repeats: 1\n"
    assert fail(text, overrides=[override])[0].startswith(problem or "--set repeats.x: `repeats` is 1")


def test_var_means_what_the_word_means_in_yaml() -> None:
    """A number is a number, `007` and `no` stay text."""
    variables = {"n": "5", "id": "007", "word": "no", "flag": "true", "list": "[1, 2]"}
    declared = "vars: {n: 1, id: a, word: a, flag: a, list: a}\n"
    assert load(BODY + SAMPLE + declared, variables=variables).job.vars == {
        "n": 5,
        "id": "007",
        "word": "no",
        "flag": True,
        "list": "[1, 2]",
    }


def test_var_that_the_job_does_not_declare_is_refused() -> None:
    """A typo in --var is an error with the close name, not a run with the default."""
    (problem,) = fail(BODY + SAMPLE + "vars: {hint: a}\n", variables={"hnt": "7"})
    assert problem.startswith("--var hnt: the job has no variable `hnt` under `vars`\n    did you mean `hint`")
