"""Prices in a job and in the file that it names: whose is whose, and what is refused with its line."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from evalrun.job.config import LoadedJob
from tests.job.conftest import fail, load

JOB = """\
endpoints: {gateway: {base_url: https://gateway.example/v1}}
models: [{name: fast, model: acme/fast-1}, {name: slow, model: acme/slow-1}]
prompts: [{name: p, user: hi}]
samples: [{id: a}]
prices: prices.yaml
"""
NOW = datetime(2026, 11, 23, tzinfo=UTC)


def load_with(prices: str, job: str = JOB, name: str = "prices.yaml") -> LoadedJob:
    """Load a job beside a price file."""
    Path(name).write_text(prices, encoding="utf-8")
    return load(job)


def fail_with(prices: str, job: str = JOB) -> list[str]:
    """Load a job beside a price file that must be refused; return its problems, rendered."""
    Path("prices.yaml").write_text(prices, encoding="utf-8")
    return fail(job)


def read_rates(loaded: LoadedJob) -> dict[str, Decimal | None]:
    """Return what a million prompt tokens of each model cost now; None without a price."""
    found = {name: prices.find(NOW) for name, prices in loaded.prices.items()}
    return {name: None if price is None else price.input for name, price in found.items()}


def write_price(price: str) -> str:
    """Return the job with a price at its first model and none in a file."""
    return JOB.replace("fast-1}", f"fast-1, price: {price}}}").replace("prices: prices.yaml\n", "")


def test_price_is_one_or_several_with_dates() -> None:
    """A list of dated prices is taken as well as a single one."""
    loaded = load(write_price("[{input: 1, output: 2}, {input: 3, output: 4, valid_from: 2026-08-21}]"))
    assert read_rates(loaded) == {"fast": Decimal(3)}
    assert loaded.prices["fast"].find(datetime(2026, 8, 20, tzinfo=UTC)).input == 1  # type: ignore[union-attr]


def test_price_file_is_found_by_name_id_alias_and_glob() -> None:
    """An entry is a model's by its name, its id, one of its aliases, or a glob over the first two."""
    for pattern in ("fast", "acme/fast-1", "f?st", "acme/fast*", "{model: quick, aliases: [acme/fast-1]"):
        entry = pattern if pattern.startswith("{") else f"{{model: '{pattern}'"
        assert read_rates(load_with(f"- {entry}, input: 1, output: 2}}\n")) == {"fast": Decimal(1)}


def test_price_nearest_to_the_model_wins() -> None:
    """The job is before the file; there the name is before the id, that before an alias, that before a longer glob."""
    lines = [
        "- {model: '*', input: 1, output: 1}",
        "- {model: 'acme/[a-z]*', input: 2, output: 1}",
        "- {model: 'acme/fa*', input: 3, output: 1}",
        "- {model: quick, aliases: [fast], input: 4, output: 1}",
        "- {model: acme/fast-1, input: 5, output: 1}",
        "- {model: fast, input: 6, output: 1}",
    ]
    for count in range(1, len(lines) + 1):
        assert read_rates(load_with("\n".join(lines[:count])))["fast"] == count
    own = load_with("\n".join(lines), write_price("{input: 7, output: 1}") + "prices: prices.yaml\n")
    assert read_rates(own) == {"fast": Decimal(7), "slow": Decimal(2)}


def test_price_file_may_be_json_or_toml() -> None:
    """A list, or the key `prices` with a list, in any syntax of a job."""
    toml = "[[prices]]\nmodel = 'fast'\ninput = 1.25\noutput = 2\nvalid_from = 2026-08-21\n"
    for name, text in (
        ("p.toml", toml),
        ("p.json", '[{"model": "fast", "input": 1.25, "output": 2}]'),
        ("p.yml", "prices:\n- {model: fast, input: 1.25, output: 2}\n"),
    ):
        loaded = load_with(text, JOB.replace("prices.yaml", name), name)
        assert read_rates(loaded) == {"fast": Decimal("1.25")}


def test_price_file_is_relative_to_the_job_and_takes_variables() -> None:
    """The path starts at the job's folder, and `${NAME}` is read in it."""
    Path("jobs").mkdir()
    Path("shared.yaml").write_text("- {model: fast, input: 1, output: 2}\n", "utf-8")
    job = JOB.replace("prices.yaml", "${PRICES}/shared.yaml")
    loaded = load(job, name="jobs/job.yaml", environ={"PRICES": ".."})
    assert read_rates(loaded) == {"fast": Decimal(1)}
    assert loaded.raw["prices"] == "${PRICES}/shared.yaml"


@pytest.mark.parametrize(
    ("first", "second"),
    [("model: 'acme/f*'", "model: '*fast-1'"), ("model: a, aliases: [fast]", "model: b, aliases: [acme/fast-1]")],
)
def test_two_prices_that_fit_alike_are_an_error_with_both_places(first: str, second: str) -> None:
    """Where two entries fit a model alike nobody chooses; a price for the model itself settles it."""
    tie = f"- {{{first}, input: 1, output: 1}}\n- {{{second}, input: 2, output: 1}}\n"
    (problem,) = fail_with(tie)
    assert problem.startswith("prices.yaml:2:3: the price of 'fast' is given twice: by ")
    assert "at prices.yaml:1:3 and by" in problem
    assert problem.endswith("write a price under `model: fast`, which comes before both")
    assert read_rates(load_with(tie + "- {model: fast, input: 3, output: 1}\n"))["fast"] == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "prices.yaml:1: the price file is empty"),
        ("[]\n", "prices.yaml:1: the price file is empty"),
        ("5\n", "prices.yaml:1: a price file holds a list of prices, got 5"),
        ("models: []\n", "prices.yaml:1: a price file holds a list, or the one key `prices` with a list"),
        ("- {input: 1, output: 2}\n", "prices.yaml:1:3: `model` is missing in prices[0]"),
        ("- {model: fast, input: 1}\n", "prices.yaml:1:3: `output` is missing in prices[0]"),
        ("- {model: fast, input: -1, output: 2}\n", "prices.yaml:1:17: `prices[0].input` must be at least 0, got -1"),
        (
            "- {model: fast, input: 10001, output: 2}\n",
            "prices.yaml:1:17: `prices[0].input` must be at most 10000, got 10001",
        ),
        (
            "- {model: fast, inptu: 1, input: 1, output: 2}\n",
            "prices.yaml:1:17: unknown key `inptu` in prices[0]\n    did you mean `input`?",
        ),
        (
            "prices: [{model: fast, input: 1, output: 2}]\nprice: 1\n",
            "prices.yaml:2:1: unknown key `price`\n    did you mean `prices`?",
        ),
        (
            "- {model: fast, input: 1, output: 2, currency: EUR}\n",
            "prices.yaml:1:38: `currency` is 'EUR', and only USD is reckoned\n    convert the rates to USD",
        ),
        (
            "- {model: fast, input: 1, output: 2, multipliers: {flex: 0}}\n",
            "prices.yaml:1:52: `prices[0].multipliers.flex` must be greater than 0, got 0",
        ),
        (
            "- {model: fast, input: 1, output: 2, multipliers: {flex: 101}}\n",
            "prices.yaml:1:52: `prices[0].multipliers.flex` must be at most 100, got 101",
        ),
        (
            "- {model: fast, input: 1, output: 2, valid_from: 2026-08-21T12:00}\n",
            (
                "prices.yaml:1:38: `valid_from`: '2026-08-21T12:00' names no zone: "
                "12:00Z is noon in UTC, 12:00+02:00 two hours earlier"
            ),
        ),
        (
            "- {model: fast, input: 1, output: 2, tiers: [{above_prompt_tokens: 9}]}\n",
            (
                "prices.yaml:1:46: the tier names no rate, so it changes nothing\n"
                "    write for example `input: 2.5`, or drop the tier"
            ),
        ),
        (
            (
                "- model: fast\n  input: 1\n  output: 2\n  tiers:\n  - {above_prompt_tokens: 9, input: 2}\n"
                "  - {above_prompt_tokens: 9, input: 3}\n"
            ),
            "prices.yaml:6:5: two tiers begin above 9 prompt tokens; the first stands at prices.yaml:5:5",
        ),
        (
            (
                "- {model: fast, input: 1, output: 2, valid_from: 2026-08-21}\n"
                "- {model: slow, input: 1, output: 2, valid_from: 2026-08-21}\n"
                "- {model: fast, input: 3, output: 2, valid_from: 2026-08-21T02:00+02:00}\n"
            ),
            (
                "prices.yaml:3:3: two prices of one model hold from 2026-08-21T02:00+02:00 on; "
                "the first stands at prices.yaml:1:3\n    give each its own `valid_from`, or drop one"
            ),
        ),
        (
            "- {model: fast, input: 1, output: 2}\n- {model: fast, input: 3, output: 2}\n",
            (
                "prices.yaml:2:3: two prices of one model hold at all times; the first stands at prices.yaml:1:3\n"
                "    give each its own `valid_from`, or drop one"
            ),
        ),
    ],
)
def test_price_file_is_refused_with_place_and_reason(text: str, problem: str) -> None:
    """What is wrong in a price file is an error with its line."""
    (found,) = fail_with(text)
    assert found.startswith(problem)


def test_price_file_tells_every_problem_at_once() -> None:
    """Faults of several entries are reported together, those of the job's own keys beside them."""
    text = "- {model: a, input: -1, output: 2}\n- {model: b, input: 1, output: 2, currency: EUR}\n- {input: x}\n"
    places = [problem.split(": ")[0] for problem in fail_with(text, JOB + "repeats: 0\n")]
    assert sorted(places) == [
        "job.yaml:6:1",
        "prices.yaml:1:14",
        "prices.yaml:2:35",
        *["prices.yaml:3:3"] * 2,
        "prices.yaml:3:4",
    ]


def test_price_file_that_is_not_there_is_named_with_a_near_one() -> None:
    """A path that leads nowhere is an error at the key that names it."""
    Path("prices.yml").write_text("", "utf-8")
    assert fail(JOB) == ["job.yaml:5:1: there is no file prices.yaml\n    did you mean `prices.yml`?"]


def test_prices_of_the_job_itself_are_checked_alike() -> None:
    """A list of prices at a model is held to the same rules, with its own places."""
    text = "[{input: 1, output: 2, valid_from: 2026-08-21}, {input: 1, output: 2, valid_from: 2026-08-21}]"
    (problem,) = fail(write_price(text))
    assert "job.yaml:2:" in problem
    assert "two prices of one model hold from 2026-08-21 on" in problem
    (problem,) = fail(write_price("[]"))
    assert "`models[0].price` must not be empty" in problem
    (problem,) = fail(write_price("5"))
    assert "`models[0].price` must be a mapping or a list, got 5" in problem


def list_warnings(loaded: LoadedJob) -> list[str]:
    """Return the warnings but that of models without a price."""
    return [warning.render() for warning in loaded.warnings if not warning.message.startswith("no price")]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "- {model: fast, input: 0.00000125, output: 2}\n",
            (
                "prices.yaml:1:17: `input` is USD 0.00000125 per 1M tokens, which looks like a price per token\n"
                "    did you mean `input: 1.25`?"
            ),
        ),
        (
            "- {model: fast, input: 0.5, output: 0.0006}\n",
            (
                "prices.yaml:1:29: `output` is USD 0.0006 per 1M tokens, which looks like a price per 1,000 tokens\n"
                "    did you mean `output: 0.6`?"
            ),
        ),
        (
            "- {model: fast, input: 1, output: 2, cached_input: 10}\n",
            (
                "prices.yaml:1:38: `cached_input` (10) is above `input` (1)\n"
                "    tokens read from the cache cost less everywhere; are the two swapped?"
            ),
        ),
        (
            "- {model: fast, input: 1, output: 2, tiers: [{above_prompt_tokens: 9, cached_input: 1.5}]}\n",
            (
                "prices.yaml:1:71: `cached_input` (1.5) is above `input` (1)\n"
                "    tokens read from the cache cost less everywhere; are the two swapped?"
            ),
        ),
        (
            "- {model: 'gpt-*', input: 1, output: 2}\n",
            "prices.yaml:1:3: the glob `gpt-*` fits no model of the job",
        ),
        (
            "- {model: fasst, input: 1, output: 2}\n",
            "prices.yaml:1:3: the price of `fasst` fits no model of the job\n    did you mean `fast`?",
        ),
        (
            "- {model: fast, input: 1, output: 2, valid_from: 2999-01-01}\n",
            (
                "prices.yaml:1:3: the price of fast begins at 2999-01-01: until then what it costs is unknown\n"
                "    leave `valid_from` out of the price that always held"
            ),
        ),
    ],
)
def test_price_that_looks_like_a_slip_is_a_warning(text: str, warning: str) -> None:
    """What may be meant as it stands, but seldom is, is said with its line."""
    assert list_warnings(load_with(text)) == [warning]


@pytest.mark.parametrize(
    "text",
    [
        "- {model: fast, input: 0, output: 0}\n",
        "- {model: fast, input: 0.01, output: 0.02, cached_input: 0.001}\n",
        "- {model: other, input: 1, output: 2}\n",
        "- {model: fast, input: 1, output: 2}\n- {model: fasst, input: 1, output: 2}\n",
        "- {model: fast, input: 1, output: 2, multipliers: {flex: null, priority: 2}}\n",
    ],
)
def test_price_that_may_well_be_meant_is_no_warning(text: str) -> None:
    """Free and cheap models, and prices of models that other jobs ask, pass without a word."""
    assert list_warnings(load_with(text)) == []


def test_models_without_a_price_are_named() -> None:
    """Unknown is loud: one warning names each of them."""
    (warning,) = [each.message for each in load_with("- {model: other, input: 1, output: 2}\n").warnings]
    assert warning == "no price for fast, slow: what they cost will be unknown"


def test_secret_in_a_price_file_is_never_repeated() -> None:
    """A key that was pasted into the file is an error, and hidden."""
    key = "sk-" + "a1" * 20
    (problem, *_) = fail_with(f"- {{model: {key}, input: 1, output: 2}}\n")
    assert key not in problem


def test_prices_as_the_page_shows_them_are_taken() -> None:
    """Every example of docs/prices.md is what a job or a price file may hold, without a warning of its own."""
    page = (Path(__file__).parents[2] / "docs" / "prices.md").read_text("utf-8")
    single, dated, _, shared = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    head = "prompts: [{name: p, user: hi}]\nsamples: [{id: a}]\nendpoints: {g: {base_url: https://g.example/v1}}\n"
    assert load(head + single).prices["gpt-5.6-terra"].entries[0].tiers[0].above_prompt_tokens == 272_000
    assert len(load(head + "models:\n  - name: m\n" + dated).prices["m"].entries) == 2
    models = (
        "models: [{name: gpt-5.1-2025-11-13}, {name: gpt-5.6-sol}, {name: gemini-2.5-flash}]\nprices: prices.yaml\n"
    )
    loaded = load_with(shared, head + models)
    assert (len(loaded.prices), loaded.warnings) == (3, ())
