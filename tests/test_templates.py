"""Templates: strict, byte-exact, sandboxed, and never fed with their own output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.errors import PromptError
from evalrun.templates import MAX_RENDERED_CHARS, Expression, Template, make_scope


def render(source: str, **scope: object) -> str:
    """Render a source with a scope of its own."""
    return Template(source, where="job.yaml:1").render(scope)


@given(st.text(alphabet=st.characters(exclude_characters="{}", exclude_categories=["Cs"])))
def test_text_without_marks_is_kept_to_the_byte(text: str) -> None:
    """Plain text comes out as it went in, line ends and trailing newlines included."""
    assert render(text) == text


@given(st.text(alphabet="ab \r\n\t", max_size=30), st.text(max_size=30))
def test_text_around_a_variable_is_kept_to_the_byte(text: str, value: str) -> None:
    """A variable is replaced; what stands around it is kept, carriage returns and newlines too."""
    assert render(text + "{{ x }}" + text, x=value) == text + value + text


@given(st.text())
def test_a_value_is_never_a_template(value: str) -> None:
    """Whatever a dataset cell holds is substituted as it stands."""
    assert render("{{ x }}", x=value) == value
    assert render("{{ x }}", x="{{ 7 * 7 }}{% if %}") == "{{ 7 * 7 }}{% if %}"


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (None, "null"), ([1, "é"], '[1, "é"]'), ({"a": 1}, '{"a": 1}'), (3, "3")]
)
def test_other_values_are_written_as_json(value: object, text: str) -> None:
    """What is not text is written as JSON writes it."""
    assert render("{{ x }}", x=value) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ missing }}",
        "{{ x.missing }}",
        "{{ x.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ lipsum }}",
        "{{ cycler }}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'a' }}",
        "{{ 9 ** 99999999 }}",
        "{{ [0] * 10 ** 9 }}",
        "{{ range(10 ** 9) }}",
        "{% include 'x' %}",
        "{{ x.append(1) }}",
        "{{ x() }}",
        "{{ 1 / 0 }}",
    ],
)
def test_what_a_template_may_not_do_is_an_error(source: str) -> None:
    """Undefined names, escapes from the sandbox and huge results end as an error that names the place."""
    with pytest.raises(PromptError, match=r"job\.yaml:1"):
        render(source, x=[1])


@pytest.mark.parametrize("source", ["{{ x", "{% if %}", "{{ 1 + }}", "{% endfor %}"])
def test_source_that_does_not_compile_is_an_error(source: str) -> None:
    """A broken template is refused when it is compiled, with its place."""
    with pytest.raises(PromptError, match=r"job\.yaml:1: the template does not compile"):
        Template(source, where="job.yaml:1")


@pytest.mark.parametrize(
    ("source", "problem"),
    [("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"), ("{{ 'a'|center(9 ** 30) }}", "fails: ")],
)
def test_a_template_out_of_bounds_says_why(source: str, problem: str) -> None:
    """What Python itself refuses is an error of the template, with a reason."""
    with pytest.raises(PromptError, match=problem + "|too large|overflow"):
        render(source)


def test_broken_template_of_windows_is_told_as_it_was_written() -> None:
    """Nothing of ours stands in the message, where lines end with CRLF."""
    with pytest.raises(PromptError) as caught:
        Template("a\r\n{% if x\r\nb", where="job.yaml:1")
    assert "evalrun" not in str(caught.value)
    assert "\\x00" not in str(caught.value)


def test_an_undefined_name_is_told_with_what_there_is() -> None:
    """The message names the missing column and lists the columns."""
    with pytest.raises(PromptError, match=r"'quesion' is undefined\n    the sample has: id, question"):
        render("{{ quesion }}", question="q", id="1")


def test_rendered_text_is_capped() -> None:
    """A template cannot fill the memory piece by piece."""
    source = "{% for i in range(9999) %}{{ x }}{% endfor %}"
    with pytest.raises(PromptError, match="longer than"):
        render(source, x="a" * (MAX_RENDERED_CHARS // 9000))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.text(alphabet="ab {}%\r\n", max_size=8), min_size=1, max_size=4), JSON_VALUES)
def test_template_of_bare_names_renders_as_jinja_would(texts: list[str], value: object) -> None:
    """The short way, text and names alone, gives what the long way gives: the same text or the same refusal."""

    def attempt(source: str) -> str | None:
        try:
            return render(source, x=value)
        except PromptError:
            return None

    source = "{{ x }}".join(texts)
    assert attempt(source) == attempt("{{ '' }}" + source)


@pytest.mark.parametrize("source", ["{{ x }}", "{{ x|string }}"])
@pytest.mark.parametrize("value", ["\x00evalrun-cr\x00", "a\r\nb\r", ""])
def test_value_is_kept_to_the_byte(source: str, value: str) -> None:
    """Nothing in a value is taken for something of ours, whatever way it is rendered."""
    assert render(source + "\r\n", x=value) == value + "\r\n"


def test_text_of_bare_names_is_capped() -> None:
    """The short way has the same limit of size."""
    with pytest.raises(PromptError, match="longer than"):
        render("{{ x }}{{ x }}", x="a" * (MAX_RENDERED_CHARS // 2 + 1))


@pytest.mark.parametrize("source", ["{{ self }}", "{{ range }}"])
def test_names_that_jinja_gives_a_value_are_left_to_it(source: str) -> None:
    """They are no columns: the short way knows columns only."""
    assert render(source).startswith("<")
    assert Template(source, where="w").names == frozenset()


def test_small_repetition_is_allowed() -> None:
    """The size limits leave ordinary arithmetic and repetition alone."""
    assert render("{{ '-' * 3 }} {{ 2 ** 10 }} {{ 2 * 3 }} {{ 2 ** 0.5 > 1 }}") == "--- 1024 6 true"


def test_literal_template_says_so() -> None:
    """Text without marks needs no rendering and names no variable."""
    assert (Template("plain", where="w").is_literal, Template("{{ a }}", where="w").is_literal) == (True, False)
    assert Template("{{ a }}{{ range(2) }}{{ b.c }}", where="w").names == {"a", "b"}


def test_expression_decides() -> None:
    """An expression is true or false for a sample."""
    expression = Expression("category == 'json' and n > 2", where="job.yaml:9")
    assert expression.names == {"category", "n"}
    assert [expression.is_true({"category": "json", "n": n}) for n in (2, 3)] == [False, True]


@pytest.mark.parametrize(
    ("source", "problem"),
    [("a ==", "does not compile"), ("missing == 1", "'missing' is undefined"), ("x > 'a'", "fails")],
)
def test_expression_that_does_not_work_is_an_error(source: str, problem: str) -> None:
    """A broken condition names its place and what is wrong."""
    with pytest.raises(PromptError, match=f"job.yaml:9: .*{problem}"):
        Expression(source, where="job.yaml:9").is_true({"x": 1})


def test_scope_holds_the_row_and_three_names_more() -> None:
    """Templates see the columns, sample_id, repeat and vars, and nothing of the environment."""
    scope = make_scope({"question": "q"}, sample_id="s", repeat=2, vars_={"tone": "dry"})
    assert scope == {"question": "q", "sample_id": "s", "repeat": 2, "vars": {"tone": "dry"}}
