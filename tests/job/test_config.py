"""Job files: what is refused, and in which words; what is accepted, and what it becomes."""

from decimal import Decimal
from pathlib import Path

import pytest

from evalrun.errors import ConfigError
from evalrun.grader_options import JsonSchemaOptions
from evalrun.job.config import find_missing_keys, load_env_file, load_job
from evalrun.options import BudgetOptions
from tests.job.conftest import BODY, HEAD, SAMPLE, fail, load

GATEWAY = """\
endpoints:
  gateway:
    base_url: {url}
models: [{{name: m}}]
prompts: [{{name: p, user: hi}}]
samples: [{{id: a}}]
"""


def test_c1_unknown_key_is_named_with_place_and_nearest_key() -> None:
    """A typo is refused with file, line, column and the key that was meant."""
    problems = fail(GATEWAY.format(url="https://x.test/v1\n    concurency: 8"))
    assert problems == [
        "job.yaml:4:5: unknown key `concurency` in endpoints.gateway\n    did you mean `concurrency`?",
    ]


def test_c1_unknown_grader_type_is_named_with_the_known_ones() -> None:
    """A grader type that is not there is reported once, not for each type there is."""
    problems = fail(BODY + SAMPLE + "graders: [{type: numerc, expected: 1}]\n")
    assert problems == ["job.yaml:5:12: unknown grader type 'numerc'\n    did you mean `numeric`?"]


def test_c1_wrong_grader_reports_only_the_type_that_was_chosen() -> None:
    """Errors of a grader are those of its own type."""
    problems = fail(BODY + SAMPLE + "graders:\n  - {type: exact, expcted: x}\n")
    assert problems == [
        "job.yaml:6:5: `expected` is missing in graders[0]",
        "job.yaml:6:19: unknown key `expcted` in graders[0]\n    did you mean `expected`?",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("concurrency: 0", "`endpoints.gateway.concurrency` must be at least 1, got 0"),
        ("concurrency: 10001", "`endpoints.gateway.concurrency` must be at most 10000, got 10001"),
        ("concurrency: 1.5", "`endpoints.gateway.concurrency` must be a whole number, got 1.5"),
        ("concurrency: true", "`endpoints.gateway.concurrency` must be a whole number, got true"),
        ("drop_params: seed", "`endpoints.gateway.drop_params` must be a list, got text 'seed'"),
        ("retry: 5", "`endpoints.gateway.retry` must be a mapping, got 5"),
        ("timeout_s: {total: -1}", "`endpoints.gateway.timeout_s.total` must be greater than 0.0, got -1"),
        ("headers: {X-A: 5}", "`endpoints.gateway.headers.X-A` must be text, got 5"),
        ("transport: curl", "`endpoints.gateway.transport` must be 'httpx', got text 'curl'"),
    ],
)
def test_c2_wrong_type_or_limit_is_told_in_plain_words(line: str, message: str) -> None:
    """A value of a wrong type or out of bounds is refused with the value and the bound."""
    problems = fail(GATEWAY.format(url=f"https://x.test/v1\n    {line}"))
    assert len(problems) == 1
    assert problems[0].startswith("job.yaml:4:")
    assert message in problems[0]


def test_c2_not_a_number_stays_text_and_is_refused() -> None:
    """`.nan` is no number of JSON, so it is text where a number belongs."""
    problems = fail(GATEWAY.format(url="https://x.test/v1\n    timeout_s: {total: .nan}"))
    assert problems == [
        (
            "job.yaml:4:17: `endpoints.gateway.timeout_s.total` must be a number, got text '.nan'\n"
            "    numbers are written as in JSON, without quotes: 1000, 0.5, 1e3"
        )
    ]


def test_c2_number_too_large_for_a_float_is_refused() -> None:
    """1e400 does not become infinity in silence."""
    problems = fail(BODY + SAMPLE + "vars: {x: 1e400}\n")
    assert problems == ["job.yaml:5:11: 1e400 is too large for a number; put it in quotes to keep it as text"]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "the environment variable MY_KEY is not set"),
        ({"MY_KEY": ""}, "the environment variable MY_KEY is empty"),
        ({"MY_KEY": "ab\ncd"}, "the environment variable MY_KEY holds a newline"),
        ({"MY_KEY": '"abcd"'}, "the environment variable MY_KEY has quotes around its value"),
        ({"MY_KEY": " abcd"}, "the environment variable MY_KEY has spaces around its value"),
        ({"MY_KEY": "äbcd"}, "the environment variable MY_KEY holds a character that a header cannot carry"),
    ],
)
def test_c3_unusable_key_variable_is_reported_by_name_only(environ: dict[str, str], message: str) -> None:
    """A key that cannot be sent is told by its variable's name and the place that names it."""
    loaded = load(GATEWAY.format(url="https://x.test/v1\n    api_key_env: MY_KEY"))
    (problem,) = find_missing_keys(loaded, ["gateway"], environ)
    assert (problem.message, problem.where) == (message, "job.yaml:4:5")
    assert "abcd" not in problem.render()


def test_c3_newline_at_the_end_of_a_key_is_no_error() -> None:
    """A key read from a file may end in a newline, which is trimmed when it is sent."""
    loaded = load(GATEWAY.format(url="https://x.test/v1\n    header_env: {X-Org: MY_KEY}"))
    assert find_missing_keys(loaded, ["gateway"], {"MY_KEY": "abcd\n"}) == []


def test_c3_missing_variable_is_reported_once() -> None:
    """A `${NAME}` that is not set is one problem, with its name and place."""
    problems = fail(GATEWAY.format(url='"${BASE}/v1"'), environ={"BASES": "x"})
    assert problems == ["job.yaml:3:5: the environment variable BASE is not set\n    did you mean `BASES`?"]


def test_c3_newline_of_a_variable_is_trimmed_with_a_warning() -> None:
    """A trailing newline of a variable is dropped, and that is said."""
    loaded = load(GATEWAY.format(url='"${BASE}"'), environ={"BASE": "https://x.test/v1\n"})
    assert loaded.job.endpoints["gateway"].base_url == "https://x.test/v1"
    assert "a newline at the end of the environment variable BASE was dropped" in loaded.warnings[0].message


def test_c4_model_without_price_is_a_warning() -> None:
    """An unknown price is told before the run."""
    loaded = load(GATEWAY.format(url="https://x.test/v1"))
    assert [problem.message for problem in loaded.warnings] == ["no price for m: what they cost will be unknown"]


def test_c4_unknown_endpoint_and_profile_get_a_suggestion() -> None:
    """References are checked, with the nearest name."""
    head = HEAD.replace("{name: careful}", "{name: a, endpoint: dmo}, {name: b, model: carefull}")
    problems = fail(head + "prompts: [{name: p, user: hi}]\n" + SAMPLE)
    assert problems == [
        "job.yaml:2:20: there is no endpoint 'dmo'\n    did you mean `demo`?",
        "job.yaml:2:46: the simulator has no profile 'carefull'\n    did you mean `careful`?",
    ]


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://api.mountsea.ai/chat", "https://api.mountsea.ai/chat"),
        ("https://API.example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com:443/v1//", "https://api.example.com/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ('"http://[::1]:8000"', "http://[::1]:8000"),
        ("http://localhost:80", "http://localhost"),
        ("http://gpu-box:8000/v1\n    allow_http: true", "http://gpu-box:8000/v1"),
    ],
)
def test_c5_base_url_is_normalised(url: str, normal: str) -> None:
    """Equal targets are written in one way; nothing is inserted."""
    assert load(GATEWAY.format(url=url)).job.endpoints["gateway"].base_url == normal


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "http://gpu-box:8000/v1",
            "sends the key in the clear to gpu-box\n    use https://, or write `allow_http: true`",
        ),
        ("https://me:hunter2@x.test/v1", "holds a user name or password"),
        ("https://x.test/v1?key=hunter2", "holds a query or a fragment"),
        ("https://x.test/v1/chat/completions", "is added\n    write base_url: https://x.test/v1"),
        ("x.test/v1", "must begin with https:// (or http://) and a host\n    write https://x.test/v1"),
        ("ftp://x.test", "must begin with https://"),
        ("'https://x.test:port/v1'", "is not a URL"),
        ("'https://x.test/ v1'", "holds white space"),
    ],
)
def test_c5_unusable_base_url_is_refused(url: str, message: str) -> None:
    """An address that leaks a secret or cannot work is refused, without repeating what is secret."""
    (problem,) = fail(GATEWAY.format(url=url))
    assert problem.startswith("job.yaml:3:5: `base_url` ")
    assert message in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "line",
    [
        "api_key_env: sk-proj-4f9aK2mQ7xLw0pRtYvBn",
        "headers: {X-Note: Bearer 4f9aK2mQ7xLw0pRtYvBn}",
        "# the old one was gsk_4f9aK2mQ7xLw0pRtYvBn11",
        "api_key: AIza4f9aK2mQ7xLw0pRtYvBn4f9aK2mQ7xLw0p",
    ],
)
def test_c8_literal_key_is_refused_without_being_repeated(line: str) -> None:
    """A key anywhere in the file, comments included, is refused and never shown."""
    problems = fail(GATEWAY.format(url=f"https://x.test/v1\n    {line}"))
    assert any("this looks like a secret key" in problem and "job.yaml:4:" in problem for problem in problems)
    assert "4f9aK2mQ7xLw0pRtYvBn" not in "".join(problems)


def test_c8_secret_header_is_refused_whatever_its_value() -> None:
    """Headers that carry keys belong into header_env."""
    (problem,) = fail(GATEWAY.format(url='https://x.test/v1\n    headers: {api-key: "plain"}'))
    assert problem.startswith("job.yaml:4:15: the header api-key is a secret and is never written out")


def test_c8_key_in_a_variable_of_vars_is_refused() -> None:
    """A secret never reaches a template."""
    text = BODY + SAMPLE + 'vars: {k: "${MY_KEY}"}\n'
    (problem,) = fail(text, environ={"MY_KEY": "sk-4f9aK2mQ7xLw0pRtYvBn"})
    assert problem.startswith("job.yaml:5:8: a variable puts a secret key into `vars.k`")


def test_c8_key_on_the_command_line_is_refused() -> None:
    """A key is not taken by --set or --var either."""
    secret = "sk-4f9aK2mQ7xLw0pRtYvBn"
    problems = fail(BODY + SAMPLE, overrides=[f"vars.k={secret}"], variables={"k": secret})
    assert len(problems) == 2
    assert secret not in "".join(problems)


def test_c9_yaml_words_keep_their_1_2_meaning() -> None:
    """Only true and false are booleans, only JSON's number forms are numbers."""
    words = "[no, on, yes, True, 010, 1_000, 0o17, 0x1f, 2026-11-22, 12:30:00, .5, +1, 1e3, -0, true, null, ~]"
    loaded = load(BODY + SAMPLE + f"vars: {{words: {words}}}\n")
    assert loaded.job.vars["words"] == [
        *["no", "on", "yes", "True", "010", "1_000", "0o17", "0x1f", "2026-11-22", "12:30:00", ".5", "+1"],
        *[1000.0, 0, True, None, None],
    ]


def test_c9_integers_are_kept_exactly() -> None:
    """An integer beyond 64 bits is not rounded."""
    assert load(BODY + SAMPLE + f"vars: {{n: {2**70 + 1}}}\n").job.vars["n"] == 2**70 + 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "job.yaml:3:1: the key `a` stands here a second time; the first is on line 1"),
        ("a: !python/object:os.system x\n", "job.yaml:1:4: the tag '!python/object:os.system' is not allowed"),
        ("a: [1, 2\nb: 3\n", "job.yaml:2:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n---\nb: 2\n", "job.yaml:2:1: a second document (`---`) begins here"),
        ("a: *nope\n", "job.yaml:1:4: the alias *nope has no anchor before it, or stands inside its own"),
        ("a: &x [*x]\n", "job.yaml:1:8: the alias *x has no anchor before it, or stands inside its own"),
        ("? [a]\n: 1\n", "job.yaml:1:3: a key must be plain text"),
        ("a:\n\t- b\n", "job.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token"),
        ('a: "\\ud800"\n', "job.yaml:1:4: the text holds half of a surrogate pair"),
        ("a: " + "[" * 200 + "\n", "job.yaml:1:104: nested deeper than 100 levels"),
        ("", "job.yaml:1: the file is empty"),
        ("- a\n", "job.yaml:1: a job must be a mapping, got a list"),
    ],
)
def test_c9_unsafe_or_broken_yaml_is_refused_with_its_line(text: str, problem: str) -> None:
    """Equal keys, tags, second documents and broken syntax are errors with line and column."""
    assert fail(text)[0].split("\n")[0].startswith(problem)


def test_c9_alias_bomb_is_refused() -> None:
    """Aliases that multiply are stopped before they fill the memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (problem,) = fail("\n".join(lines))
    assert "the aliases of this file expand to more than 100,000 values" in problem


def test_c9_aliases_and_merge_keys_work_within_bounds() -> None:
    """Anchors may be used; a merged mapping gives way to what is written."""
    text = BODY + SAMPLE + "vars:\n  a: &a {x: 1, y: 2}\n  b: {<<: *a, y: 3}\n  c: *a\n"
    assert load(text).job.vars == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}


def test_config_reports_all_errors_at_once_in_file_order() -> None:
    """One run of validate shows everything that is to be mended, broken parts and broken references alike."""
    text = """\
nme: x
endpoints: {g: {base_url: "http://far.test", concurrency: 0}}
models: [{name: a, endpoint: h}, {name: a, params: {stream: true}}]
prompts: [{name: p, user: "{{ x"}]
gate: {min_pass_rate: 2}
"""
    places = [problem.split(": ")[0] for problem in fail(text)]
    assert places == [
        *["job.yaml:1:1", "job.yaml:1:1", "job.yaml:2:17", "job.yaml:2:46", "job.yaml:3:20", "job.yaml:3:35"],
        *["job.yaml:3:53", "job.yaml:4:21", "job.yaml:5:8"],
    ]


def test_config_without_samples_is_refused() -> None:
    """A job must say what it asks."""
    (problem,) = fail(BODY)
    assert "the job has no samples: neither `dataset` nor `samples`" in problem


@pytest.mark.parametrize(
    "line",
    [
        "gate: {baseline: latest}",
        "gate: {mode: noninferiority}",
        "report: {baseline_model: careful}",
    ],
)
def test_config_key_of_a_later_version_is_refused(line: str) -> None:
    """A key that would be ignored is an error, not a silence."""
    (problem,) = fail(BODY + SAMPLE + line + "\n")
    assert problem.startswith("job.yaml:5:")
    assert "is not in this version yet" in problem


def test_config_key_of_a_later_version_may_say_nothing() -> None:
    """The contract's example with its do-nothing values is accepted."""
    load(
        BODY.replace("{simulator:", "{stream: false, profile: null, simulator:")
        + SAMPLE
        + "gate: {baseline: null, mode: regression, alpha: 0.05, min_drop: 0.0, metrics: [], max_missing: 0.01}\n"
        + "report: {formats: [html], baseline_model: null}\n"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("null", None), ("latest", "latest"), ("[latest, 20261122-120000]", ("latest", "20261122-120000"))],
)
def test_config_reuse_is_a_run_or_a_list(text: str, value: object) -> None:
    """`reuse` names no run, one, or several; an empty list is refused, since it would say nothing."""
    assert load(BODY + SAMPLE + f"reuse: {text}\n").job.reuse == value
    assert fail(BODY + SAMPLE + "reuse: []\n") != []


def test_config_epochs_is_another_word_for_repeats() -> None:
    """`epochs` sets the repeats; both together are refused."""
    assert load(BODY + SAMPLE + "epochs: 3\n").job.repeats == 3
    assert "both are set" in fail(BODY + SAMPLE + "epochs: 3\nrepeats: 2\n")[0]
    assert fail(BODY + SAMPLE + "epochs: 0\n") == ["job.yaml:5:1: `repeats` must be at least 1, got 0"]


def test_config_variables_are_replaced_in_endpoints_paths_and_vars_only() -> None:
    """`${NAME}` counts in three places; `$${` is a literal; the raw form stays unresolved."""
    text = BODY.replace("{{ question }}", "${HOME_TOWN}") + SAMPLE + 'vars: {a: "${A}", b: "$${A}"}\n'
    loaded = load(text, environ={"A": "1"})
    assert loaded.job.vars == {"a": "1", "b": "${A}"}
    assert loaded.job.prompts[0].user == "${HOME_TOWN}"
    assert loaded.raw["vars"] == {"a": "${A}", "b": "$${A}"}


def test_config_digest_is_of_the_unresolved_job() -> None:
    """The digest does not change with the environment, but with an override."""
    text = BODY + SAMPLE + 'vars: {a: "${A}"}\n'
    digests = [load(text, environ={"A": value}).digest for value in ("1", "2")]
    assert digests[0] == digests[1]
    assert load(text, environ={"A": "1"}, overrides=["repeats=2"]).digest != digests[0]


def test_config_prompt_and_schema_files_are_loaded_in_place() -> None:
    """Files that the job names are read relative to it, and errors in them name them."""
    Path("prompts").mkdir()
    Path("prompts/terse.yaml").write_text("system: Be brief.\nuser: '{{ question }}'\n")
    Path("schema.json").write_text('{"type": "object"}')
    text = HEAD + "prompts: [{name: t, file: prompts/terse.yaml}]\n" + SAMPLE
    loaded = load(text + "graders: [{type: json-schema, file: schema.json}]\n")
    (grader,) = loaded.job.graders
    assert (loaded.job.prompts[0].system, loaded.job.prompts[0].file) == ("Be brief.", None)
    assert isinstance(grader, JsonSchemaOptions)
    assert grader.schema_ == {"type": "object"}
    assert loaded.where("prompts", 0, "user") == "prompts/terse.yaml:2:1"
    Path("prompts/terse.yaml").write_text("user: '{{ question'\nsytem: x\n")
    assert [problem.split(": ")[0] for problem in fail(text)] == ["prompts/terse.yaml:2:1"]


def test_config_toml_has_the_same_keys_and_dates_stay_text() -> None:
    """A TOML job loads alike; its errors have lines."""
    text = """\
repeats = 0
[vars]
day = 2026-11-22
[endpoints.demo.simulator]
answer = "{{ answer }}"
profiles.careful.accuracy = 2
[[models]]
name = "careful"
[[models]]
name = "careful"
[[prompts]]
name = "p"
user = "hi"
[[samples]]
id = "a"
"""
    assert fail(text, name="job.toml") == [
        "job.toml:1:1: `repeats` must be at least 1, got 0",
        "job.toml:6:1: `endpoints.demo.simulator.profiles.careful.accuracy` must be at most 1.0, got 2",
        "job.toml:10:1: the name 'careful' is used twice in models; first at job.toml:8:1\n    give each its own name",
    ]
    good = (
        text.replace("repeats = 0", "repeats = 2")
        .replace("accuracy = 2", "accuracy = 1")
        .replace('[[models]]\nname = "careful"\n', "", 1)
    )
    assert load(good, name="job.toml").job.vars == {"day": "2026-11-22"}
    assert fail("a = [1,\n b", name="job.toml")[0].startswith("job.toml:2:2: not valid TOML: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1,\n "a": 2}', "job.json:2:2: the key `a` stands here a second time"),
        ('{"a": 1,\n "b": }', "job.json:2:7: not valid JSON: a value is expected here"),
        ('{"a": NaN}', "job.json:1:7: not valid JSON: a value is expected here"),
        ('{"a": 1e999}', "job.json:1:7: 1e999 is too large for a number"),
        ('{"a": 1', "job.json:1:8: not valid JSON: `,` or `}` is expected here"),
        ('{"repeats": 0}', "job.json:1:1: `endpoints` is missing"),
    ],
)
def test_config_json_errors_have_lines(text: str, problem: str) -> None:
    """A JSON job is read strictly, with the place of each error."""
    assert fail(text, name="job.json")[0].startswith(problem)


def test_config_missing_or_unreadable_file_is_refused() -> None:
    """A file that is not there gets the nearest name; a Latin-1 file its line."""
    Path("quickstart.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match=r"there is no file quikstart.yaml\n    did you mean `quickstart.yaml`"):
        load_job(Path("quikstart.yaml"), environ={})
    Path("latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin.yaml:2: byte 0xe9 is not UTF-8"):
        load_job(Path("latin.yaml"), environ={})


def test_config_where_names_the_nearest_known_place() -> None:
    """A place is found for every key path, at worst that of what holds it."""
    loaded = load(BODY + SAMPLE)
    assert loaded.where("prompts", 0, "user") == "job.yaml:3:25"
    assert loaded.where("prompts", 0, "nothing", 5) == "job.yaml:3:11"
    assert loaded.where("nothing") == "job.yaml:1:1"


def test_config_fills_in_names_and_the_only_endpoint() -> None:
    """The job's name is the file's stem, a model's endpoint the only one there is."""
    loaded = load(BODY + SAMPLE, name="mini.yaml")
    assert (loaded.name, loaded.job.models[0].endpoint) == ("mini", "demo")
    assert "cannot name a folder" in fail("name: ../x\n" + BODY + SAMPLE)[0]


def test_env_file_is_read_with_comments_quotes_and_export() -> None:
    """The usual forms of an env file are understood; a broken line is named without its value."""
    Path(".env").write_text("# keys\n\nexport A=1\nB = 'two words' \nC=x # note\n", encoding="utf-8")
    assert load_env_file(Path(".env")) == {"A": "1", "B": "two words", "C": "x"}
    Path(".env").write_text("A=1\nhunter2\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_env_file(Path(".env"))
    assert str(caught.value) == ".env:2: the line is not NAME=VALUE"


def test_config_budget_is_read() -> None:
    """Limits of a run are exact in USD; a limit that is left out is none, and so is an empty budget."""
    written = load(BODY + SAMPLE + "budget: {usd: 0.1, tokens: 5, requests: 3, wall_s: 60}\n").job.budget
    assert written == BudgetOptions(usd=Decimal("0.1"), tokens=5, requests=3, wall_s=60.0)
    assert load(BODY + SAMPLE + "budget: {}\n").job.budget == BudgetOptions()
    assert load(BODY + SAMPLE + "budget:\n").job.budget is None


@pytest.mark.parametrize("limit", ["usd: 0", "usd: -1", "tokens: 0", "tokens: 1.5", "requests: 0", "wall_s: 0"])
def test_config_budget_of_nothing_is_refused(limit: str) -> None:
    """A limit that lets nothing through is a mistake, not a budget."""
    (problem,) = fail(BODY + SAMPLE + f"budget: {{{limit}}}\n")
    assert problem.startswith(f"job.yaml:5:10: `budget.{limit.split(':')[0]}` must be ")


def test_config_rate_limits_stand_at_the_endpoint_and_at_the_model() -> None:
    """Both may limit requests and tokens per minute; 0 is refused."""
    body = BODY.replace("{simulator:", "{requests_per_minute: 600, tokens_per_minute: 9e4, simulator:")
    body = body.replace("{name: careful", "{requests_per_minute: 60, tokens_per_minute: 0.5, name: careful")
    job = load(body + SAMPLE).job
    (endpoint,) = job.endpoints.values()
    assert (endpoint.requests_per_minute, endpoint.tokens_per_minute) == (600, 90_000)
    assert (job.models[0].requests_per_minute, job.models[0].tokens_per_minute) == (60, 0.5)
    assert "at least 0.001" in fail(BODY.replace("{simulator:", "{tokens_per_minute: 0, simulator:") + SAMPLE)[0]
