"""Who takes part, how each is called for the same work, and how the peers are installed.

A peer lives in a folder of its own below the one that `--peers` names: a venv, or what npm made. Telemetry and checks
for newer versions are turned off by `ENVIRON`; the README says how to take the network away.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.whole.work import Work, write_job

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = Path(__file__).resolve().parent / "programs"
EVALRUN = "evalrun"
WRK = "wrk (C): the limit"
WRK_S = 2
INSTALLED = "installed.txt"
"""Written last into a peer's folder: its versions."""
ENVIRON = {
    "OPENAI_API_KEY": "sk-benchmark",
    "CANNED_API_KEY": "sk-benchmark",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "TELEMETRY_ENABLED": "false",
    # Most canned answers are wrong, which is no failure of the tool.
    "PROMPTFOO_FAILED_TEST_EXIT_CODE": "0",
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A tool, and how it is called."""

    name: str
    place: str | None = None
    """Its folder below the one of the peers; None when it needs none."""
    make_command: Callable[[Work, Path], list[str]]
    """Writes what the tool needs into the work's folder, and returns the command."""
    add_environ: Callable[[Work, Path], Mapping[str, str]] = field(default=lambda _work, _place: {})
    n_probes: int = 0
    """Requests that it sends besides, to learn the limits."""
    most_prompts: int | None = None
    """It gets no more prompts than this in a turn, because it would take minutes; None: as many as evalrun."""
    most_waited_for: int | None = 2_560
    """The same where each reply takes 200 ms; None: as many as evalrun."""


def find_place(contender: Contender, peers: Path | None) -> Path:
    """Return the folder of a contender; one that is no peer needs none, and gets the folder of all."""
    return (peers or Path()) / (contender.place or "")


def find_contenders(peers: Path | None) -> tuple[list[Contender], list[str]]:
    """Return who can take part, and the names of those who are not installed."""
    there = [one for one in CONTENDERS if _is_installed(one, peers)]
    return there, [one.name for one in CONTENDERS if one not in there]


def make_environ(contender: Contender, work: Work, place: Path) -> dict[str, str]:
    """Return the whole environment of a contender: this one's, without a proxy, with no word to anyone at home."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key != "PYTHONDONTWRITEBYTECODE" and not key.lower().endswith("_proxy")
    }
    home = {"HF_HOME": str(work.folder / "hf"), "XDG_CACHE_HOME": str(work.folder / "cache")}
    return {**kept, **ENVIRON, **home, **contender.add_environ(work, place)}


def call_evalrun(work: Work, *, should_stream: bool = False) -> list[str]:
    """Write evalrun's job into the work's folder and return the command."""
    job = write_job(work, should_stream=should_stream)
    return [sys.executable, "-m", "evalrun", "run", str(job), "--progress", "plain", "--no-gate"]


def install_peers(peers: Path, names: list[str]) -> list[str]:
    """Install peers, each by itself; return the names of those that could not be."""
    failed = []
    wanted = read_pins()
    for name in names or list(wanted):
        print(f"installing {name}", flush=True)
        try:
            _install(peers / name, wanted[name])
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{name} could not be installed: {error}", file=sys.stderr)
            failed.append(name)
    return failed


def read_pins() -> dict[str, dict[str, list[str]]]:
    """Return what each peer's folder holds, by its name."""
    return tomllib.loads((Path(__file__).resolve().parent / "peers.toml").read_text(encoding="utf-8"))


def read_versions(contenders: Iterable[Contender], peers: Path | None) -> list[str]:
    """Return name and version of what is measured."""
    found = [_read_line(["nginx", "-v"]).replace("nginx version: ", "").replace("/", " ")]
    if any(one.name == WRK for one in contenders):
        found.append(_read_line(["wrk", "-v"]).partition(" [")[0])
    for place in dict.fromkeys(one.place for one in contenders if one.place is not None):
        assert peers is not None
        found += (peers / place / INSTALLED).read_text(encoding="utf-8").splitlines()
    return found


def _read_line(command: list[str]) -> str:
    """Return the first line that a command says, to stdout or stderr and whatever its exit code is: `wrk -v` has 1."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip().partition("\n")[0]


def _install(place: Path, pins: Mapping[str, list[str]]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / INSTALLED).unlink(missing_ok=True)
    if "npm" in pins:
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(place), *pins["npm"]]
        subprocess.run(command, check=True, env={**os.environ, **ENVIRON})
        versions = [pin.replace("@", " ") for pin in pins["npm"]]
    else:
        venv.create(place, with_pip=True, symlinks=True)
        subprocess.run([str(place / "bin/pip"), "install", "--quiet", *pins["packages"]], check=True)
        versions = [re.sub(r"(\[.*\])?==", " ", pin) for pin in pins["packages"]]
    (place / INSTALLED).write_text("\n".join(versions), encoding="utf-8")


def _is_installed(contender: Contender, peers: Path | None) -> bool:
    if contender.name == WRK:
        return shutil.which("wrk") is not None
    if contender.place is None:
        return True
    return peers is not None and (peers / contender.place / INSTALLED).exists()


def _call_wrk(work: Work, _place: Path) -> list[str]:
    body = json.loads(work.dataset.open(encoding="utf-8").readline())
    messages = [
        {"role": "system", "content": "Answer with a number."},
        {"role": "user", "content": body["question"]},
    ]
    request = json.dumps({"model": "m", "temperature": 0, "max_tokens": 64, "messages": messages})
    script = f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [[{request}]]\n'
    (work.folder / "post.lua").write_text(script, encoding="utf-8")
    url = f"{work.base_url}/chat/completions"
    return ["wrk", "-t1", f"-c{work.concurrency}", f"-d{WRK_S}", "-s", "post.lua", url]


def _call_program(program: str, *more: str) -> Callable[[Work, Path], list[str]]:
    def call(work: Work, place: Path) -> list[str]:
        given = [str(work.dataset), "answers.jsonl", work.base_url, str(work.concurrency)]
        return [str(place / "bin/python"), str(PROGRAMS / program), *given, *more]

    return call


def _call_lm_eval(work: Work, place: Path) -> list[str]:
    # The file has .yaml at its end and is YAML: JSON is.
    task = {
        "task": "whole",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(work.dataset)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"temperature": 0, "max_gen_toks": 64, "until": []},
        "metric_list": [{"metric": "exact_match"}],
        "metadata": {"version": 1},
    }
    (work.folder / "whole.yaml").write_text(json.dumps(task), encoding="utf-8")
    model = (
        f"model=m,base_url={work.base_url}/chat/completions,num_concurrent={work.concurrency},"
        "max_retries=3,tokenized_requests=False"
    )
    return [
        *(str(place / "bin/lm_eval"), "--model", "local-chat-completions", "--model_args", model),
        *("--tasks", "whole", "--include_path", str(work.folder), "--apply_chat_template"),
        *("--system_instruction", "Answer with a number.", "--output_path", "out", "--log_samples"),
    ]


def _call_inspect(work: Work, place: Path) -> list[str]:
    # It finds tasks by relative paths only.
    shutil.copy(PROGRAMS / "inspect_task.py", work.folder)
    return [
        *(str(place / "bin/inspect"), "eval", "inspect_task.py", "--model", "openai-api/canned/m"),
        *("--max-connections", str(work.concurrency), "--max-samples", str(work.concurrency)),
        *("--display", "none", "--log-dir", "logs"),
    ]


def _call_curator(work: Work, place: Path) -> list[str]:
    program = str(PROGRAMS / "curator_loop.py")
    return [str(place / "bin/python"), program, str(work.dataset), work.base_url, str(work.concurrency)]


def _set_up_curator(work: Work, place: Path) -> dict[str, str]:
    """Return its folder for all that it keeps, and tokens from its copy of litellm: it would fetch them otherwise."""
    tokens = place.glob("lib/python*/site-packages/litellm/litellm_core_utils/tokenizers")
    return {"CURATOR_CACHE_DIR": str(work.folder / "curator"), "TIKTOKEN_CACHE_DIR": str(next(tokens))}


def _call_promptfoo(work: Work, place: Path) -> list[str]:
    tests = []
    with work.dataset.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            tests.append({"vars": {"question": row["question"], "answer": row["answer"]}})
    (work.folder / "tests.json").write_text(json.dumps(tests), encoding="utf-8")
    config = {"apiBaseUrl": work.base_url, "temperature": 0, "max_tokens": 64}
    messages = [
        {"role": "system", "content": "Answer with a number."},
        {"role": "user", "content": "{{question}}"},
    ]
    job = {
        "prompts": [json.dumps(messages)],
        "providers": [{"id": "openai:chat:m", "config": config}],
        "defaultTest": {"assert": [{"type": "contains", "value": "{{answer}}"}]},
        "tests": "file://tests.json",
    }
    (work.folder / "promptfooconfig.json").write_text(json.dumps(job), encoding="utf-8")
    return [
        *(str(place / "node_modules/.bin/promptfoo"), "eval", "-c", "promptfooconfig.json"),
        *("-j", str(work.concurrency), "--no-cache", "--no-table", "--no-progress-bar", "-o", "out.json"),
    ]


CONTENDERS = (
    Contender(name=EVALRUN, make_command=lambda work, _place: call_evalrun(work), most_waited_for=None),
    Contender(name=WRK, make_command=_call_wrk),
    Contender(
        name="openai SDK loop",
        place="openai",
        make_command=_call_program("openai_loop.py", "plain"),
        most_prompts=50_000,
    ),
    Contender(
        name="openai SDK loop, uvloop",
        place="openai",
        make_command=_call_program("openai_loop.py", "uvloop"),
        most_prompts=5_000,
    ),
    Contender(
        name="openai SDK loop, aiohttp",
        place="openai",
        make_command=_call_program("openai_loop.py", "aiohttp"),
        most_prompts=5_000,
    ),
    Contender(
        name="httpx default workers",
        place="httpx",
        make_command=_call_program("httpx_workers.py"),
        most_prompts=5_000,
        most_waited_for=512,
    ),
    Contender(name="lm-eval", place="lm-eval", make_command=_call_lm_eval, most_prompts=5_000),
    Contender(
        name="litellm acompletion loop",
        place="litellm",
        make_command=_call_program("litellm_loop.py"),
        most_prompts=5_000,
    ),
    Contender(
        name="inspect_ai",
        place="inspect",
        make_command=_call_inspect,
        add_environ=lambda work, _place: {"DATASET": str(work.dataset), "CANNED_BASE_URL": work.base_url},
        most_prompts=1_000,
        most_waited_for=512,
    ),
    Contender(
        name="curator",
        place="curator",
        make_command=_call_curator,
        add_environ=_set_up_curator,
        n_probes=1,
        most_prompts=1_000,
        most_waited_for=512,
    ),
    Contender(
        name="promptfoo",
        place="promptfoo",
        make_command=_call_promptfoo,
        add_environ=lambda work, _place: {"PROMPTFOO_CONFIG_DIR": str(work.folder / "promptfoo")},
        most_prompts=1_000,
        most_waited_for=512,
    ),
)
