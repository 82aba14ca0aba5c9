"""The example datasets, jobs and the starter are well-formed, balanced and fit each other."""

import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from evalrun.options import DatasetOptions, Job, PromptOptions
from evalrun.templates import Expression, Template, make_scope

ROOT = Path(__file__).resolve().parent.parent
DATASETS = ROOT / "datasets"
STARTER = ROOT / "evalrun" / "cli" / "starter"
JOBS = (*sorted((ROOT / "configs").glob("*.yaml")), STARTER / "job.yaml")

PREFIXES = {
    "arithmetic": "arith",
    "extraction": "extract",
    "classification": "class",
    "facts": "fact",
    "chinese": "zh",
    "thai": "th",
}
DATE_OR_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{2}:[0-9]{2}")
NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")
SCRIPTS = {"chinese": re.compile(r"[\u4e00-\u9fff]"), "thai": re.compile(r"[\u0e01-\u0e5b]")}

Row = Mapping[str, Any]


def read_jsonl(path: Path) -> list[Row]:
    """Return the rows of a JSONL file; every line must hold one."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n")]


def read_csv(path: Path) -> list[Row]:
    """Return the rows of a CSV file with a header line."""
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, strict=True))


def read_job(path: Path) -> Job:
    """Return a job file, validated as strictly as `evalrun validate` does."""
    data = YAML(typ="safe", pure=True).load(path)
    return TypeAdapter(Job).validate_json(json.dumps(data), strict=True)


def read_prompt(prompt: PromptOptions, folder: Path) -> list[str]:
    """Return all template sources of a prompt, from the job or from its file."""
    if prompt.file is None:
        held: Any = {"messages": prompt.messages, "system": prompt.system, "user": prompt.user}
    else:
        held = YAML(typ="safe", pure=True).load(folder / prompt.file)
        TypeAdapter(PromptOptions).validate_python({"name": prompt.name, **held})
    contents = [message["content"] for message in held.get("messages") or ()]
    return [text for text in (*contents, held.get("system"), held.get("user")) if text is not None]


def read_scopes(job: Job, folder: Path) -> list[dict[str, Any]]:
    """Return what the job's templates see, for each sample that `where` lets through."""
    dataset = job.dataset if isinstance(job.dataset, DatasetOptions) else DatasetOptions(path=str(job.dataset))
    path = folder / str(dataset.path)
    rows = read_csv(path) if path.suffix == ".csv" else read_jsonl(path)
    scopes = [make_scope(row, sample_id=row[dataset.id or "id"], repeat=0, vars_=job.vars) for row in rows]
    where = Expression(dataset.where or "true", where="where")
    return [scope for scope in scopes if where.is_true(scope)]


def list_duplicates(values: Sequence[str]) -> list[str]:
    """Return the values that stand there more than once."""
    return [value for value, n in Counter(values).items() if n > 1]


@pytest.fixture(scope="module")
def quickstart() -> list[Row]:
    """Give the rows of the quickstart's dataset."""
    return read_jsonl(DATASETS / "quickstart.jsonl")


def select(rows: Sequence[Row], *categories: str) -> list[Row]:
    """Return the rows of some categories."""
    return [row for row in rows if row["category"] in categories]


@pytest.mark.parametrize(
    "path", [*sorted(DATASETS.glob("*.*")), STARTER / "samples.jsonl"], ids=lambda path: str(path.name)
)
def test_dataset_file_is_clean_text(path: Path) -> None:
    """Each file is UTF-8 in normal form C with LF line ends, no mark at its start and one newline at its end."""
    text = path.read_bytes().decode("utf-8")

    assert unicodedata.normalize("NFC", text) == text
    assert not set("\r\ufeff\u200b\xa0") & set(text)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_quickstart_has_192_samples_in_six_equal_categories(quickstart: list[Row]) -> None:
    """The dataset is as large and as balanced as its README says."""
    assert Counter(row["category"] for row in quickstart) == dict.fromkeys(PREFIXES, 32)


def test_quickstart_rows_hold_four_texts(quickstart: list[Row]) -> None:
    """Each row has the four columns, in order, each a text with nothing to strip."""
    for row in quickstart:
        assert list(row) == ["id", "category", "question", "answer"]
        assert all(isinstance(value, str) and value and value == value.strip() for value in row.values()), row["id"]


def test_quickstart_ids_count_up_within_each_category(quickstart: list[Row]) -> None:
    """Ids are unique and say the category: arith-001 to arith-032."""
    for category, prefix in PREFIXES.items():
        assert [row["id"] for row in select(quickstart, category)] == [f"{prefix}-{n:03}" for n in range(1, 33)]


def test_quickstart_categories_take_turns(quickstart: list[Row]) -> None:
    """Any six lines in a row hold each category, so that a small limit still covers all."""
    assert [row["category"] for row in quickstart] == list(PREFIXES) * 32


def test_quickstart_questions_differ(quickstart: list[Row]) -> None:
    """No question is asked twice, not even in other letter case or spacing."""
    assert list_duplicates([" ".join(row["question"].casefold().split()) for row in quickstart]) == []


def test_arithmetic_answers_are_plain_numbers(quickstart: list[Row]) -> None:
    """Each answer is a number with at most two decimals, written in the one shortest way."""
    for row in select(quickstart, "arithmetic"):
        assert NUMBER.fullmatch(row["answer"]), row["id"]
        assert Decimal(row["answer"]) * 100 % 1 == 0, row["id"]


def test_extraction_answers_have_the_keys_that_the_question_names(quickstart: list[Row]) -> None:
    """The keys in double quotes are those of the answer, two to four of them, in the same order."""
    for row in select(quickstart, "extraction"):
        task = row["question"].partition("\n\nText: ")[0]
        answer = json.loads(row["answer"])

        assert list(answer) == re.findall(r'"([a-z_]+)"', task), row["id"]
        assert 2 <= len(answer) <= 4, row["id"]


def test_extraction_texts_hold_the_words_of_the_answer(quickstart: list[Row]) -> None:
    """Each text to extract stands as it is in the given text; only dates and times are rewritten."""
    for row in select(quickstart, "extraction"):
        text = row["question"].partition("\n\nText: ")[2]
        values = json.loads(row["answer"]).values()
        parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
        words = [part for part in parts if isinstance(part, str) and not DATE_OR_TIME.fullmatch(part)]
        assert all(word in text for word in words), row["id"]


def test_classification_answers_are_balanced_letters_of_the_question(quickstart: list[Row]) -> None:
    """Each question lists four different options, A to D, and each letter is right eight times."""
    rows = select(quickstart, "classification")

    for row in rows:
        options = dict(re.findall(r"^([A-Z])\) (.+)$", row["question"], re.MULTILINE))
        assert list(options) == ["A", "B", "C", "D"], row["id"]
        assert len(set(options.values())) == 4, row["id"]
    assert Counter(row["answer"] for row in rows) == {"A": 8, "B": 8, "C": 8, "D": 8}


def test_word_answers_are_short_and_not_in_their_question(quickstart: list[Row]) -> None:
    """A word answer is one or two words that a reply must add: repeating the question does not pass."""
    words = [row for row in select(quickstart, "facts", "chinese", "thai") if not row["answer"].isdigit()]

    assert len(words) == 64
    for row in words:
        assert len(row["answer"].split()) <= 2, row["id"]
        assert row["answer"].casefold() not in row["question"].casefold(), row["id"]


@pytest.mark.parametrize("category", ["chinese", "thai"])
def test_non_latin_questions_are_half_numbers_in_their_script(quickstart: list[Row], category: str) -> None:
    """Each question, and each answer that is no number, is written in its script; half the answers are numbers."""
    rows = select(quickstart, category)
    numbers = [row for row in rows if NUMBER.fullmatch(row["answer"])]

    assert len(numbers) == 16
    for row in rows:
        assert SCRIPTS[category].search(row["question"]), row["id"]
        assert row in numbers or all(SCRIPTS[category].match(letter) for letter in row["answer"]), row["id"]


def test_support_tickets_are_balanced_and_unique() -> None:
    """Sixty reviewed tickets, twenty for each label; ids and texts are unique."""
    rows = read_csv(DATASETS / "support-tickets.csv")
    reviewed = Counter(row["urgency"] for row in rows if row["reviewed"] == "yes")

    assert list(rows[0]) == ["ticket_id", "channel", "ticket", "urgency", "reviewed"]
    assert reviewed == {"high": 20, "normal": 20, "low": 20}
    assert Counter(row["reviewed"] for row in rows) == {"yes": 60, "no": 6}
    assert [row["ticket_id"] for row in rows] == [f"T-{n:03}" for n in range(1, 67)]
    assert list_duplicates([row["ticket"].casefold() for row in rows]) == []
    assert {row["channel"] for row in rows} == {"email", "chat", "phone"}


def test_starter_samples_are_few_and_unique() -> None:
    """The starter has 16 samples of two kinds, with unique ids and questions and answers that fit the kind."""
    rows = read_jsonl(STARTER / "samples.jsonl")

    assert Counter(row["category"] for row in rows) == {"numbers": 8, "words": 8}
    assert list_duplicates([row["id"] for row in rows]) == []
    assert list_duplicates([row["question"] for row in rows]) == []
    for row in rows:
        assert bool(NUMBER.fullmatch(row["answer"])) == (row["category"] == "numbers"), row["id"]


def test_jobs_are_the_four_configs_and_the_starter() -> None:
    """A job that is added or renamed is added here as well."""
    assert [path.stem for path in JOBS] == ["gateway", "local", "prompt-comparison", "quickstart", "job"]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: str(path.stem))
def test_job_is_valid(path: Path) -> None:
    """Each job passes the strict schema, and its first line leads editors to that schema."""
    job = read_job(path)

    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=./job.schema.json\n")
    assert job.name == (None if path.stem == "job" else path.stem)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: str(path.stem))
def test_job_prompts_render_over_every_sample(path: Path) -> None:
    """No template of a prompt names a column that some sample lacks, and each prompt differs from sample to sample."""
    job = read_job(path)
    scopes = read_scopes(job, path.parent)

    for prompt in job.prompts:
        sources = read_prompt(prompt, path.parent)
        templates = [Template(source, where=prompt.name) for source in sources]
        assert len({tuple(template.render(scope) for template in templates) for scope in scopes}) == len(scopes)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: str(path.stem))
def test_job_graders_cover_every_sample(path: Path) -> None:
    """At least one grader applies to each sample, and each grader applies to some."""
    job = read_job(path)
    scopes = read_scopes(job, path.parent)
    conditions = [Expression(grader.when or "true", where="when") for grader in job.graders]
    applies = [[condition.is_true(scope) for condition in conditions] for scope in scopes]

    assert all(any(row) for row in applies)
    assert all(any(column) for column in zip(*applies, strict=True))


def test_quickstart_has_two_prompts_and_three_models() -> None:
    """Its plan is 1,152 rows, all of them asked of the simulator, each at a known price."""
    job = read_job(ROOT / "configs" / "quickstart.yaml")

    assert (len(job.prompts), len(job.models)) == (2, 3)
    assert all(endpoint.simulator for endpoint in job.endpoints.values())
    assert all(model.price for model in job.models)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: str(path.stem))
def test_job_models_pick_known_endpoints_and_profiles(path: Path) -> None:
    """Each model's endpoint exists, and a simulated model names a profile of its simulator."""
    job = read_job(path)
    default = next(iter(job.endpoints))

    for model in job.models:
        simulator = job.endpoints[model.endpoint or default].simulator
        assert simulator is None or model.wire_model in simulator.profiles
