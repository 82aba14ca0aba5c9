"""Reports name the whole command that goes on, and say nothing twice."""

from dataclasses import replace

import pytest

from evalrun.records import Finding, Verdict
from evalrun.report.markdown import render_markdown
from evalrun.report.model import ReportData, build_report_row
from evalrun.report.render import render_html
from evalrun.report.words import make_resume_command
from tests.report.fake_run import make_data, make_result

COMMAND = "evalrun run configs/support.yaml --resume 20261122-153045-a1b2c3"


def make_unfinished() -> ReportData:
    """Return a report of a run with a row that is pending."""
    message = "stopped; `evalrun run JOB --resume` goes on from here, said ``the server``"
    row = build_report_row(
        make_result(status="pending", error_code="lane_stopped", error_message=message, passed=None, output=None), []
    )
    told = "1 row is pending; `evalrun run JOB --resume` goes on"
    finding = Finding(rule="pending", outcome="no_verdict", message=told)
    verdict = Verdict(outcome="no_verdict", exit_code=3, headline=f"no verdict: {told}", findings=(finding,))
    return replace(make_data([row]), verdict=verdict)


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_report_names_job_and_run_of_the_command(render: object) -> None:
    """Nobody has to find out what JOB stands for; backticks of ours become quotes, a server's stay."""
    text = render(make_unfinished())  # type: ignore[operator]
    assert "run JOB" not in text
    assert "`evalrun run" not in text
    assert "said ``the server``" in text


def test_page_says_no_verdict_once() -> None:
    """The word stands in large letters beside the reason, which does not begin with it again."""
    text = render_html(make_unfinished())
    assert "no verdict:" not in text.split('class="verdict', 1)[1].split("</section>", 1)[0].split('class="tiles"')[0]
    assert f"1 row is pending; “{COMMAND}” goes on" in text


def test_command_without_facts_keeps_its_placeholder() -> None:
    """A manifest that names no job leaves JOB standing; odd paths are quoted for the shell."""
    assert make_resume_command({}) == "evalrun run JOB --resume"
    assert make_resume_command({"job_path": "my job.yaml", "run_id": "r"}) == "evalrun run 'my job.yaml' --resume r"
