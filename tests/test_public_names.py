"""The package's public names, and what importing it costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import evalrun
from evalrun.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent

HEAVY = ("polars", "httpx", "pydantic", "scipy", "numpy", "jinja2", "rich", "orjson", "anyio", "ruamel", "jsonschema")


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )


def test_public_names_are_sorted_and_present() -> None:
    """`__all__` is sorted and each of its names exists."""
    assert sorted(evalrun.__all__) == evalrun.__all__
    assert [name for name in evalrun.__all__ if not hasattr(evalrun, name)] == []


def test_no_module_is_named_like_a_public_name() -> None:
    """Importing a module can never put itself in a public function's place."""
    modules = {path.stem for path in (ROOT / "evalrun").iterdir()}
    assert modules & set(evalrun.__all__) == {"__version__"} & modules


def test_public_names_are_the_same_when_used_twice(tmp_path: Path) -> None:
    """Each public function works when called a second time: no import has replaced it by a module."""
    code = """
import sys, evalrun
for _ in range(2):
    run = evalrun.run(sys.argv[1], reports_dir=sys.argv[2], limit=6)
    assert isinstance(run, evalrun.Run), run
    assert evalrun.load(run.path).run_id == run.run_id
    assert evalrun.load("latest", reports_dir=sys.argv[2]).results.collect().height == 36
    import asyncio
    again = asyncio.run(evalrun.run_async(sys.argv[1], reports_dir=sys.argv[2], limit=6))
    assert again.run_id != run.run_id
    try:
        evalrun.load("no-such-run", reports_dir=sys.argv[2])
    except evalrun.EvalrunError:
        pass
    else:
        raise AssertionError("loaded a run that is not there")
    assert evalrun.__version__
"""
    run_python(code, str(ROOT / "configs/quickstart.yaml"), str(tmp_path / "reports"))


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public is refused as Python refuses it."""
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        evalrun.nonsense  # noqa: B018 - the access is the test


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []], ids=["help", "version", "nothing"])
def test_start_up_imports_nothing_heavy(arguments: list[str]) -> None:
    """`--help` and `--version` load none of the heavy libraries, nor does `import evalrun`."""
    code = f"""
import sys
import evalrun
if {arguments!r}:
    from evalrun.cli.main import main
    assert main({arguments!r}) == 0
print("loaded:", *sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    assert run_python(code).stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_explains_itself(name: str) -> None:
    """Each command loads and has a help page whose first line says what it does."""
    result = subprocess.run(
        [sys.executable, "-m", "evalrun", name, "--help"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: evalrun {name}")
