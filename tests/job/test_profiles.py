"""Profiles: what they fill in, what the endpoint's own keys keep, and that each fact has a source."""

import re
from typing import Any

import orjson
import pytest

from evalrun.job.config import find_missing_keys
from evalrun.job.plan import Plan
from evalrun.job.profiles import load_profiles
from evalrun.job.schema import validate
from evalrun.options import EndpointOptions
from tests.job.conftest import fail, load

PROVIDERS = ["openai", "azure", "openrouter", "gemini", "anthropic", "groq", "deepseek", "mistral", "vllm", "ollama"]

JOB = """\
endpoints:
  there: {{{endpoint}}}
models: [{{name: m, price: {{input: 1, output: 1}}, params: {{{params}}}}}]
prompts: [{{name: p, user: hi}}]
samples: [{{id: a}}]
"""


def load_endpoint(endpoint: str, params: str = "") -> EndpointOptions:
    """Return an endpoint as the run would use it."""
    return load(JOB.format(endpoint=endpoint, params=params)).job.endpoints["there"]


def send(endpoint: str, params: str) -> dict[str, Any]:
    """Return the parameters of the request that a job would send."""
    body: dict[str, Any] = orjson.loads(next(Plan(load(JOB.format(endpoint=endpoint, params=params))).requests()).body)
    del body["model"], body["messages"]
    return body


def test_every_provider_of_the_contract_has_a_profile() -> None:
    """The names that documentation promises are there."""
    assert {*PROVIDERS, "anthropic-compat", "mountsea"} <= set(load_profiles())


@pytest.mark.parametrize("name", list(load_profiles()))
def test_every_fact_has_a_source_and_sets_what_an_endpoint_may_say(name: str) -> None:
    """No fact stands without a source and a day, and none sets a key that a job could not write."""
    profile = load_profiles()[name]
    for fact in (*profile.facts, *profile.notes):
        assert fact.sources
        assert all(re.fullmatch(r"https://\S+|the gateway's documentation page of \S+ \S+", s) for s in fact.sources)
        assert fact.read_on.year >= 2026
        assert fact.key is not None or fact.text
    base_url = profile.get("base_url") or "https://x.test/v1"
    given = {"profile": name, "base_url": base_url}
    for fact in profile.facts:
        assert fact.key is not None
        _, errors = validate(EndpointOptions, {**given, fact.key: fact.value})
        assert errors == []


@pytest.mark.parametrize("name", [name for name, profile in load_profiles().items() if profile.get("base_url")])
def test_profile_alone_is_an_endpoint(name: str) -> None:
    """`profile: NAME` needs nothing beside it where the provider has one address."""
    assert load_endpoint(f"profile: {name}").base_url == load_profiles()[name].get("base_url")


def test_unknown_profile_is_an_error_with_the_known_ones() -> None:
    """A profile that is not there is told at its place, with the nearest and all known ones."""
    first, *_ = fail(JOB.format(endpoint="profile: grok, base_url: 'https://x.test/v1'", params=""))
    assert first.startswith("job.yaml:2:11: there is no profile 'grok'\n    did you mean `groq`? known: openai, azure,")


def test_profile_that_is_no_text_is_told_once() -> None:
    """A profile of a wrong type is refused like any other key."""
    problems = fail(JOB.format(endpoint="profile: 5, base_url: 'https://x.test/v1'", params=""))
    assert [problem.split("\n")[0] for problem in problems] == [
        "job.yaml:2:11: `endpoints.there.profile` must be text, got 5"
    ]


def test_azure_needs_an_address() -> None:
    """A provider without one fixed address still asks for `base_url`."""
    (problem,) = fail(JOB.format(endpoint="profile: azure", params=""))
    assert "give exactly one of `base_url` and `simulator`" in problem


def test_endpoints_own_keys_come_first() -> None:
    """What the endpoint writes is kept; the profile fills in the rest."""
    endpoint = load_endpoint("profile: openai, base_url: 'https://proxy.test/v1', api_key_env: MY_KEY")
    assert (endpoint.base_url, endpoint.api_key_env) == ("https://proxy.test/v1", "MY_KEY")
    assert endpoint.rename_params == {"max_tokens": "max_completion_tokens"}
    assert endpoint.stream_options == {"include_usage": True, "include_obfuscation": False}
    assert load_endpoint("profile: openai, stream_options: {}").stream_options == {}
    assert load_endpoint("profile: openai, api_key_env: null").api_key_env is None


def test_key_goes_into_the_profiles_header_unless_the_endpoint_has_a_way_of_its_own() -> None:
    """Azure's key travels as `api-key`; a header or a variable of the endpoint's own replaces it."""
    url = "profile: azure, base_url: 'https://me.openai.azure.com/openai/v1'"
    assert load_endpoint(url).header_env == {"api-key": "AZURE_OPENAI_API_KEY"}
    assert load_endpoint(f"{url}, header_env: {{API-Key: MINE}}").header_env == {"API-Key": "MINE"}
    bearer = load_endpoint(f"{url}, api_key_env: TOKEN")
    assert (bearer.api_key_env, bearer.header_env) == ("TOKEN", {})
    named = load_endpoint("profile: openai, header_env: {OpenAI-Organization: ORG}")
    assert (named.api_key_env, named.header_env) == ("OPENAI_API_KEY", {"OpenAI-Organization": "ORG"})
    own = load_endpoint("profile: openai, header_env: {X-Api-Key: MINE}")
    assert (own.api_key_env, own.header_env) == (None, {"X-Api-Key": "MINE"})


def test_missing_key_is_reported_where_the_profile_is_named() -> None:
    """The place of what a profile filled in is the profile's."""
    loaded = load(JOB.format(endpoint="profile: groq", params=""))
    (problem,) = find_missing_keys(loaded, ["there"], {})
    assert (problem.message, problem.where) == ("the environment variable GROQ_API_KEY is not set", "job.yaml:2:11")


def test_renames_are_merged_and_can_be_cancelled() -> None:
    """An entry of the endpoint's replaces the profile's, and `{x: x}` sends a parameter as it is."""
    params = "seed: 1, max_completion_tokens: 9, store: true, stop: x"
    assert send("profile: mistral", params) == {"random_seed": 1, "max_tokens": 9, "stop": "x"}
    own = "profile: mistral, rename_params: {seed: seed, store: store, stop: stop_at}, drop_params: [max_tokens]"
    assert send(own, params) == {"seed": 1, "store": True, "stop_at": "x"}


def test_what_a_profile_drops_is_said() -> None:
    """A parameter that a profile leaves out is a warning with the way to send it all the same."""
    loaded = load(JOB.format(endpoint="profile: groq", params="logprobs: true, temperature: 0"))
    assert [warning.render() for warning in loaded.warnings] == [
        (
            "job.yaml:3:59: `models[0].params.logprobs` is not sent: the endpoint drops it (profile groq)\n"
            "    leave it out, or write `rename_params: {logprobs: logprobs}` in the endpoint to send it all the same"
        )
    ]


def test_stream_options_that_a_profile_drops_are_said() -> None:
    """A streamed endpoint whose profile refuses stream_options sends none and says so."""
    loaded = load(JOB.format(endpoint="profile: mistral, stream: true", params=""))
    (warning,) = loaded.warnings
    assert warning.message == "`stream_options` is not sent: profile mistral drops it; usage may be missing"
    assert send("profile: mistral, stream: true", "") == {"stream": True}
    kept = "profile: mistral, stream: true, rename_params: {stream_options: stream_options}"
    assert send(kept, "") == {"stream": True, "stream_options": {"include_usage": True}}


def test_profile_of_a_simulator_gives_its_dialect_only() -> None:
    """A simulated endpoint takes a provider's renames and drops, but neither its address nor its key."""
    simulator = "simulator: {answer: x, profiles: {m: {}}}"
    endpoint = load_endpoint(f"profile: mistral, {simulator}")
    assert (endpoint.base_url, endpoint.api_key_env, dict(endpoint.header_env)) == (None, None, {})
    assert endpoint.rename_params["seed"] == "random_seed"
    assert load_endpoint(f"profile: azure, {simulator}").header_env == {}


def test_request_key_follows_from_what_is_sent() -> None:
    """Two endpoints that send the same body to the same address share their keys, profile or not."""
    own = "base_url: 'https://api.groq.com/openai/v1', drop_params: [logprobs]"
    keys = [
        next(Plan(load(JOB.format(endpoint=endpoint, params="logprobs: true, n: 1"))).requests()).request_key
        for endpoint in ("profile: groq", own, "base_url: 'https://api.groq.com/openai/v1'")
    ]
    assert keys[0] == keys[1] != keys[2]
