"""docs/import.md and docs/graders-python.md: every example is carried out."""

import re
import shlex
from pathlib import Path

import evalrun
from tests.cli.calls import call_evalrun

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)

JOB = """\
endpoints: {demo: {simulator: {answer: "{{ said }}", profiles: {sim: {accuracy: 1}}}}}
models: [{name: sim}]
prompts: [{name: p, user: "{{ said }}"}]
samples:
  - {id: long, said: "It is surely Paris", answer: paris, most_words: 3}
  - {id: short, said: "Paris", answer: paris, most_words: 3}
  - {id: wrong, said: "Rome", answer: paris, most_words: 3}
"""


def scan_blocks(page: str, folder: Path) -> list[tuple[str, str]]:
    """Return kind and text of the page's blocks; those with a name are written as files of that name."""
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    for _, name, text in blocks:
        if name:
            (folder / name).write_text(text, encoding="utf-8")
    return [(kind, text) for kind, _, text in blocks]


def test_every_command_of_the_import_page_works(tmp_path: Path) -> None:
    """Files and commands of docs/import.md, in their order: each ends with 0, and the verdicts are the plain ones."""
    commands = [
        line for kind, text in scan_blocks("import.md", tmp_path) if kind == "console" for line in text.splitlines()
    ]
    assert len(commands) >= 5
    for command in commands:
        called = call_evalrun(*shlex.split(command.removeprefix("$ evalrun ")), cwd=tmp_path)
        assert (command, called.returncode, called.stderr if called.returncode else "") == (command, 0, "")
    found = {}
    for name in ("answers", "sums-batch", "wide"):
        results = evalrun.load(name, reports_dir=tmp_path / "reports").results.select("model", "passed", "cost_usd")
        found[name] = results.collect().rows()
    right = [("gpt-x", True), ("tiny", False), ("gpt-x", True), ("tiny", True)]
    assert {name: [row[:2] for row in rows] for name, rows in found.items()} == dict.fromkeys(found, right)
    assert [row[2] for row in found["sums-batch"]] == [0.000041, None, 0.000038, None]
    assert [row[2] for row in found["wide"]] == [0.001, 0.0, 0.001, 0.0]


def test_example_of_the_python_page_grades_as_it_says(tmp_path: Path) -> None:
    """The function and the grader of docs/graders-python.md, in a job of the simulator."""
    (graders,) = [text for kind, text in scan_blocks("graders-python.md", tmp_path) if kind == "yaml"]
    (tmp_path / "job.yaml").write_text(JOB + graders, encoding="utf-8")
    called = call_evalrun("run", "job.yaml", "--progress", "none", cwd=tmp_path)
    assert called.returncode == 0
    run = evalrun.load("job", reports_dir=tmp_path / "reports")
    assert run.grades.select("passed", "reason").collect().rows() == [
        (False, "4 words, 3 are allowed"),
        (True, "returned True"),
        (False, "returned False"),
    ]
