"""The job file: read, changed by the command line, checked in full, and made ready for the other rooms.

A path enters; a LoadedJob leaves, or one ConfigError with every problem of the file. Nothing of the environment but
the variables that `${NAME}` names is kept, and never the value of a key.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalrun.errors import AuthorError, ConfigError, Problem
from evalrun.grader_options import GraderOptions
from evalrun.job.author_files import load_prompt, load_schema, load_schema_grader
from evalrun.job.base_url import check_base_url
from evalrun.job.canonical import make_digest
from evalrun.job.checks import check_parts, collect_parts, is_folder_name
from evalrun.job.document import load_document
from evalrun.job.environment import Substitution, check_key_variable
from evalrun.job.environment import load_env_file as load_env_file
from evalrun.job.explain import explain
from evalrun.job.judge_checks import warn_judges
from evalrun.job.literal_keys import hide_keys
from evalrun.job.not_yet import drop_not_yet
from evalrun.job.overrides import apply_overrides, apply_variables
from evalrun.job.param_checks import warn_model_params, warn_stream_options
from evalrun.job.places import KeyPath, Places
from evalrun.job.price_book import build_price_book
from evalrun.job.price_file import PriceFile, load_price_file
from evalrun.job.profiles import apply_profiles
from evalrun.job.scalars import name_value
from evalrun.job.schema import validate
from evalrun.options import EndpointOptions, Job, ModelOptions
from evalrun.prices import PriceBook


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedJob:
    """A job that is valid in itself: only its samples are still unseen."""

    job: Job
    """Variables resolved, prompt and schema files loaded, every model's endpoint filled in, base URLs normalised."""
    path: Path
    folder: Path
    """The job file's folder: paths of the job are relative to it."""
    name: str
    """The job's name, or the file's stem."""
    raw: Mapping[str, Any]
    """As written, with `${NAME}` unresolved, after `--set` and `--var`; for run.json."""
    digest: str
    """sha256 hex of the canonical JSON of `raw`."""
    warnings: tuple[Problem, ...]
    places: Places
    prices: PriceBook
    """What each model costs; those without a known price are not in it."""
    notes: tuple[str, ...]
    """What is no warning, but should be said before the run: which prices come from the library."""

    def where(self, *keys: str | int) -> str:
        """Return the place of a key as `file:line:column`, or that of the nearest known key above it."""
        return self.places.find(keys)


def load_job(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    environ: Mapping[str, str],
    asks_library: bool = False,
) -> LoadedJob:
    """Read and check a job file.

    Args:
        path: YAML, TOML or JSON.
        overrides: `--set` arguments, `PATH=VALUE`.
        variables: `--var` arguments.
        environ: The environment, for `${NAME}`; keys are not looked at.
        asks_library: Whether the price library, where it is installed, fills in the prices that nobody names.

    Raises:
        ConfigError: The job cannot be used; holds every problem found, sorted by place.
    """
    document = load_document(path)
    places, raw = document.places, document.data
    if not isinstance(raw, dict):
        what = "the file is empty" if raw is None else f"a job must be a mapping, got {name_value(raw)}"
        raise ConfigError(what, where=f"{places.file}:1", hint="`evalrun init` writes a job to start from")
    loading = _Loading(path, places)
    loading.problems += document.problems
    if raw.get("name") is None and not is_folder_name(path.stem):
        message = f"the file's stem {path.stem!r} cannot name a folder under reports/"
        loading.problems.append(Problem(message=message, where=f"{places.file}:1", hint="write `name: …`"))
    loading.problems += loading.rename_epochs(raw)
    loading.problems += apply_overrides(raw, overrides, places)
    loading.problems += apply_variables(raw, variables or {}, places)
    job = loading.read(raw, environ)
    if loading.problems or job is None:
        raise ConfigError(_tidy(loading.problems, places.file))
    priced = build_price_book(job, loading.price_file, places, at=datetime.now(UTC), asks_library=asks_library)
    if priced.problems:
        raise ConfigError(_tidy(priced.problems, places.file))
    return LoadedJob(
        job=job,
        path=path,
        folder=path.parent,
        name=job.name or path.stem,
        raw=raw,
        digest=make_digest(raw),
        warnings=tuple(map(hide_keys, [*loading.warnings, *priced.warnings, *_warn(job, raw, places)])),
        places=places,
        prices=priced.book,
        notes=priced.notes,
    )


def find_missing_keys(loaded: LoadedJob, endpoints: Collection[str], environ: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with the variables that hold the keys of some endpoints, by name only.

    Args:
        loaded: The job.
        endpoints: Names of the endpoints that the run will send to.
        environ: The environment.
    """
    problems = []
    for name in endpoints:
        options = loaded.job.endpoints[name]
        wanted: list[tuple[KeyPath, str]] = []
        if options.api_key_env is not None:
            wanted.append((("endpoints", name, "api_key_env"), options.api_key_env))
        wanted += [(("endpoints", name, "header_env", key), value) for key, value in options.header_env.items()]
        for path, variable in wanted:
            message = check_key_variable(variable, environ)
            if message is not None:
                hint = f"export {variable}=… without quotes in the value, or put it into a file for --env-file"
                problems.append(Problem(message=message, where=loaded.where(*path), hint=hint))
    return problems


class _Loading:
    """One reading of a job: what was found on the way."""

    def __init__(self, path: Path, places: Places) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.price_file: PriceFile | None = None
        self._path = path
        self._folder = path.parent
        self._places = places

    def read(self, raw: Mapping[str, Any], environ: Mapping[str, str]) -> Job | None:
        """Return the finished job; None, with problems noted, when it is not valid."""
        tree = copy.deepcopy(dict(raw))
        self.problems += drop_not_yet(tree, self._places.find)
        shown = copy.deepcopy(tree)
        substitution = Substitution(environ, self._places.find)
        substitution.resolve_tree(tree)
        self.warnings += substitution.warnings
        # What a missing variable leaves behind is not reported a second time.
        unresolved = {problem.where for problem in substitution.problems}
        self.problems += substitution.problems
        later = apply_profiles(tree, self._places)
        job, errors = validate(Job, tree)
        later += explain(errors, tree, shown, self._places.find, root=Job)
        job = self._load_files(tree, job, later)
        self.problems += [problem for problem in later if problem.where not in unresolved]
        return _finish(job) if job is not None and not self.problems else None

    def rename_epochs(self, tree: dict[str, Any]) -> list[Problem]:
        """Write `epochs`, another word for it, as `repeats`."""
        if "epochs" not in tree:
            return []
        place = self._places.find(("epochs",))
        if "repeats" in tree:
            return [Problem(message="`epochs` is another word for `repeats`; both are set", where=place)]
        tree["repeats"] = tree.pop("epochs")
        self._places.mark(("repeats",), place)
        return []

    def _load_files(self, tree: dict[str, Any], job: Job | None, problems: list[Problem]) -> Job | None:
        """Load what the job names, and check what its keys must agree on."""
        parts = collect_parts(tree, job)
        prompts = list(parts.prompts)
        for index, prompt in enumerate(prompts):
            if prompt is not None:
                with _Collecting(problems):
                    prompts[index] = load_prompt(prompt, ("prompts", index), self._folder, self._places)
        graders: dict[KeyPath, GraderOptions] = {}
        for path, grader in parts.graders:
            if grader is not None:
                with _Collecting(problems):
                    graders[path] = load_schema_grader(grader, path, self._folder, self._places)
        samples = self._load_samples(tree, problems)
        with _Collecting(problems):
            self.price_file = self._load_prices(tree.get("prices"))
        root = tree.get("files_root")
        files_root = self._folder / root if isinstance(root, str) and root else None
        problems += check_parts(replace(parts, prompts=tuple(prompts)), self._places.find, files_root)
        if files_root is not None and not files_root.is_dir():
            message = f"`files_root` {root!r} is not a folder"
            problems.append(Problem(message=message, where=self._places.find(("files_root",))))
        if job is None or problems:
            return None
        return replace(
            job,
            prompts=tuple(prompt for prompt in prompts if prompt is not None),
            graders=tuple(item for path, item in graders.items() if path[0] == "graders"),
            defaults=replace(
                job.defaults, graders=tuple(item for path, item in graders.items() if path[0] == "defaults")
            ),
            samples=samples,
        )

    def _load_prices(self, name: Any) -> PriceFile | None:
        """Return the price file that the job names; None without one, or when validation reports the name."""
        if not isinstance(name, str) or not name:
            return None
        return load_price_file(name, self._folder, self._places.find(("prices",)))

    def _load_samples(self, tree: Mapping[str, Any], problems: list[Problem]) -> tuple[Mapping[str, Any], ...]:
        """Return the inline samples with the schema files of their graders loaded in place."""
        samples = tree.get("samples")
        loaded: list[Mapping[str, Any]] = []
        for number, sample in enumerate(samples if isinstance(samples, list) else []):
            graders = sample.get("graders") if isinstance(sample, Mapping) else None
            if isinstance(graders, list):
                where = [self._places.find(("samples", number, "graders", index)) for index in range(len(graders))]
                ready = []
                for grader, place in zip(graders, where, strict=True):
                    with _Collecting(problems):
                        ready.append(self._load_sample_schema(grader, place))
                sample = {**sample, "graders": ready}
            loaded.append(sample)
        return tuple(loaded)

    def _load_sample_schema(self, grader: Any, place: str) -> Any:
        is_schema = isinstance(grader, Mapping) and grader.get("type") != "python"
        if not is_schema or not isinstance(grader.get("file"), str):
            return grader
        schema = load_schema(grader["file"], self._folder, place)
        return {**{key: value for key, value in grader.items() if key != "file"}, "schema": schema}


class _Collecting:
    """Turns an author's error within the block into entries of a list, so that the next item is still read."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: object, _trace: object) -> bool:
        if isinstance(error, AuthorError):
            self._problems += error.problems
            return True
        return False


def _finish(job: Job) -> Job:
    """Return the job with base URLs normalised and each model's endpoint filled in."""
    endpoints = {name: _normalise(options) for name, options in job.endpoints.items()}
    only = next(iter(endpoints))
    models = tuple(model if model.endpoint else _with_endpoint(model, only) for model in job.models)
    return replace(job, endpoints=endpoints, models=models)


def _with_endpoint(model: ModelOptions, endpoint: str) -> ModelOptions:
    return replace(model, endpoint=endpoint)


def _normalise(options: EndpointOptions) -> EndpointOptions:
    if options.base_url is not None:
        return replace(options, base_url=check_base_url(options.base_url, allow_http=options.allow_http).url)
    simulator = options.simulator
    if simulator is None or simulator.url is None:
        return options
    url = check_base_url(simulator.url, allow_http=options.allow_http).url
    return replace(options, simulator=replace(simulator, url=url))


def _warn(job: Job, raw: Mapping[str, Any], places: Places) -> list[Problem]:
    """Return what is no error, but should be known before the run."""
    warnings = []
    for name, options in job.endpoints.items():
        if options.base_url is not None and options.base_url.count("/") == 2:
            # As the job writes it: what a variable holds is not told.
            written = raw["endpoints"][name].get("base_url") or options.base_url
            message = f"requests go to {written}/chat/completions; most servers want a path before that"
            place = places.find(("endpoints", name, "base_url"))
            warnings.append(Problem(message=message, where=place, hint=f"perhaps base_url: {written}/v1"))
        warnings += warn_stream_options(options, ("endpoints", name), places.find)
    for index, model in enumerate(job.models):
        endpoint = job.endpoints[str(model.endpoint)]
        warnings += warn_model_params(model.params, endpoint, ("models", index, "params"), places.find)
    return [*warnings, *warn_judges(raw, places.find)]


def _tidy(problems: Sequence[Problem], file: str) -> list[Problem]:
    """Return each problem once, without secrets, in the order of the file."""

    def order(problem: Problem) -> tuple[int, list[int]]:
        place = problem.where or ""
        numbers = place.removeprefix(file).split(":")[1:] if place.startswith(f"{file}:") else []
        is_numbered = bool(numbers) and all(number.isdigit() for number in numbers)
        return (0 if is_numbered else 1, [int(number) for number in numbers] if is_numbered else [])

    return sorted(dict.fromkeys(map(hide_keys, problems)), key=order)
