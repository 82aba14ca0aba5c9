"""What is asked and what it costs: models of every dialect of usage, with prices that tell all buckets apart."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

LONG_PROMPT_TOKENS: Final = 60
"""Above it the long-context tiers hold: within the lengths that the samples have."""

CONCURRENCY: Final = 32
NO_URL: Final = "http://127.0.0.1:1"

_WORDS: Final = (
    "amber", "archipelago", "basalt", "copper", "delta", "ember", "1,048,576", "fjord", "granite", "harbour", "island",
    "juniper", "kelp", "{lagoon: [1, 2]}", "Meßgerät", "nectar", "orchard", "水晶宮", "quarry", "reed-bed", "timber",
)  # fmt: skip
"""Of kinds that two rules of counting see differently: else an estimate would be as good as a count."""
_MAX_PROMPT_WORDS: Final = 90
_MAX_ANSWER_WORDS: Final = 12
_MAX_REFUSED_SHARE: Final = 0.05
_SOUND_EACH: Final = 20
"""So many samples have one among them with a sound."""
_SOUND: Final = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One model: how it behaves, and what it costs."""

    name: str
    profile: Mapping[str, Any]
    price: Mapping[str, Any]
    """As the job writes it, USD per 1M tokens, numbers as texts."""
    params: Mapping[str, Any] = field(default_factory=dict)
    other_times: tuple[Mapping[str, Any], ...] = ()
    """Prices that did not hold yet, or no longer, when the requests were sent."""
    is_stream: bool = False
    n_refused: int = 0
    """About how many requests are refused with 429. No share of all: each one slows the lane, as it should, and what no
    limit refuses cannot be learned from."""
    tells_cost: bool = False
    """Whether the replies name their cost, at `REPORTED_PRICE`."""


REPORTED_PRICE: Final[Mapping[str, Any]] = {"input": "1", "cached_input": "0.1", "output": "4"}
"""What the simulator's `openrouter` dialect reckons its cost with."""

_LONG: Final[Mapping[str, Any]] = {
    "above_prompt_tokens": LONG_PROMPT_TOKENS, "input": "2.5", "cached_input": "0.25", "output": "15",
}  # fmt: skip
_TIERS: Final[Mapping[str, float]] = {"flex": 0.3, "priority": 0.1}
_MULTIPLIERS: Final[Mapping[str, str]] = {"flex": "0.5", "priority": "2"}

TARGETS: Final = (
    Target(
        name="openai",
        profile={
            "cached_share": 0.5, "reasoning_tokens": 12, "service_tiers": _TIERS, "error_rate": 0.04,
            "quirks": {"Q59": 0.05},
        },
        n_refused=6,
        price={
            "input": "1.25", "cached_input": "0.125", "output": "10", "audio_input": "40", "tiers": [_LONG],
            "multipliers": _MULTIPLIERS,
        },
    ),
    Target(
        name="openai-stream",
        is_stream=True,
        profile={
            "cached_share": 0.25, "cache_write_share": 0.5, "reasoning_tokens": 5,
            "quirks": {"Q25": 0.03, "Q06": 0.1, "Q04": 0.1, "Q05": 0.1, "Q10:data": 0.01},
        },
        price={
            "input": "4", "cached_input": "0.4", "cache_write": "5", "output": "20", "reasoning": "12.5",
            "tiers": [{"above_prompt_tokens": 40, "input": "6"}, {**_LONG, "cache_write": "10"}],
        },
    ),
    Target(
        name="continuous",
        is_stream=True,
        profile={"usage": "continuous", "reasoning_tokens": 4, "quirks": {"Q25": 0.04}},
        price={"input": "0.3", "output": "2.5"},
    ),
    Target(
        name="deepseek",
        profile={"usage": "deepseek", "cached_share": 0.75, "quirks": {"Q16": 0.01, "Q25:length": 0.01}},
        price={"input": "0.28", "cached_input": "0.028", "output": "0.42"},
    ),
    Target(
        name="gemini",
        profile={"usage": "gemini", "reasoning_tokens": 20, "quirks": {"Q14:524": 0.01}},
        price={"input": "1.25", "output": "10", "reasoning": "11", "tiers": [_LONG]},
    ),
    Target(
        name="gemini-stream",
        is_stream=True,
        profile={"usage": "gemini", "reasoning_tokens": 20, "quirks": {"Q05": 0.5, "Q25:rst": 0.01}},
        price={"input": "2", "output": "12", "multipliers": {"default": "0.9"}},
    ),
    Target(
        name="openrouter",
        tells_cost=True,
        profile={"usage": "openrouter", "cached_share": 0.5, "reasoning_tokens": 3, "answers_as": "vendor/other-name"},
        price={"input": "100", "output": "100"},
    ),
    Target(
        name="anthropic",
        profile={
            "usage": "anthropic", "cached_share": 0.4, "cache_write_share": 0.3, "quirks": {"Q49:no-reply": 0.03},
        },
        price={
            "input": "3", "cached_input": "0.3", "cache_write": "3.75", "output": "15",
            "tiers": [{
                "above_prompt_tokens": LONG_PROMPT_TOKENS, "input": "6", "cached_input": "0.6", "cache_write": "7.5",
                "output": "22.5",
            }],
        },
    ),
    Target(
        name="anthropic-stream",
        is_stream=True,
        profile={"usage": "anthropic", "cached_share": 0.9, "cache_write_share": 0.1, "service_tier": "batch"},
        price={
            "input": "3", "cached_input": "0.3", "cache_write": "6", "output": "15", "multipliers": {"batch": "0.5"},
        },
    ),
    Target(
        name="responses",
        profile={"usage": "responses", "cached_share": 0.3, "reasoning_tokens": 7, "error_rate": 0.04},
        price={"input": "1.75", "cached_input": "0.175", "output": "14", "valid_from": "2026-01-01"},
        other_times=(
            {"input": "3", "output": "30"},
            {"input": "7", "output": "70", "valid_from": "2025-12-31T23:59:59Z"},
            {"input": "9", "output": "90", "valid_from": "2999-01-01"},
        ),
    ),
    Target(
        name="speaker",
        params={"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
        profile={"reasoning_tokens": 2, "cached_share": 0.5},
        price={
            "input": "2.5", "cached_input": "1.25", "output": "10", "audio_input": "32", "audio_output": "64",
            "tiers": [{"above_prompt_tokens": LONG_PROMPT_TOKENS, "audio_output": "80"}],
        },
    ),
    Target(
        name="forgetful",
        profile={"quirks": {"Q01": 0.1, "Q02": 0.1}},
        price={"input": "0.5", "output": "1.5"},
    ),
    Target(name="silent", profile={"usage": "none"}, price={"input": "0.2", "output": "0.8"}),
    Target(
        name="odd",
        profile={"cached_share": 0.5, "quirks": {"Q03": 0.05, "Q07": 0.05, "Q08": 0.05}},
        price={"input": "1", "cached_input": "0.5", "output": "2"},
    ),
)  # fmt: skip
"""One for each dialect and each kind of loss; the last three tell their usage badly, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the job lies."""

    folder: Path
    n_samples: int
    targets: tuple[Target, ...] = field(default=TARGETS)

    @property
    def job(self) -> Path:
        """The job file."""
        return self.folder / "job.json"


def write_site(folder: Path, n_samples: int, *, url: str = NO_URL) -> Site:
    """Write the job and its samples; again with a URL once the simulator has one."""
    site = Site(folder=folder, n_samples=n_samples)
    if not (folder / "samples.jsonl").exists():
        with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(_make_sample(number)) + "\n" for number in range(n_samples))
    site.job.write_text(json.dumps(_make_job(site, url), indent=1), encoding="utf-8")
    return site


def _make_sample(number: int) -> dict[str, Any]:
    """Return a sample of any length, the same one for the same number; some with a sound."""
    random_words = random.Random(number)
    asked = random_words.choices(_WORDS, k=random_words.randint(1, _MAX_PROMPT_WORDS))
    told = random_words.choices(_WORDS, k=random_words.randint(1, _MAX_ANSWER_WORDS))
    content: Any = f"{number}: {' '.join(asked)}?"
    if number % _SOUND_EACH == 0:
        content = [{"type": "text", "text": content}, _SOUND]
    return {"id": f"s{number}", "messages": [{"role": "user", "content": content}], "answer": " ".join(told)}


def _make_job(site: Site, url: str) -> dict[str, Any]:
    simulator = {
        "url": url,
        "answer_column": "answer",
        "profiles": {target.name: _make_profile(target, site.n_samples) for target in site.targets},
    }
    retry = {"base_s": 0.01, "max_s": 0.05, "max_attempts": 12}
    endpoint = {"simulator": simulator, "concurrency": CONCURRENCY, "retry": retry}
    return {
        "name": "accounts",
        "durability": "process",
        "endpoints": {"plain": endpoint, "streamed": {**endpoint, "stream": True}},
        "models": [
            {
                "name": f"{target.name}-label",
                "model": target.name,
                "endpoint": "streamed" if target.is_stream else "plain",
                "params": target.params,
                "price": _to_numbers([*target.other_times, target.price] if target.other_times else target.price),
            }
            for target in site.targets
        ],
        "prompts": [{"name": "plain", "messages_column": "messages"}],
        "dataset": "samples.jsonl",
        "report": {"formats": [], "include": "none"},
    }


def _make_profile(target: Target, n_samples: int) -> dict[str, Any]:
    profile = {"latency_ms": 4, **target.profile}
    if target.n_refused:
        share = min(_MAX_REFUSED_SHARE, target.n_refused / n_samples)
        profile["quirks"] = {**profile.get("quirks", {}), "Q37:ms:0.02": share}
    return profile


def _to_numbers(value: Any) -> Any:
    """Return a price with its texts as the numbers that a job holds."""
    if isinstance(value, str):
        return float(value)
    if isinstance(value, Mapping):
        return {key: each if key == "valid_from" else _to_numbers(each) for key, each in value.items()}
    return [_to_numbers(each) for each in value] if isinstance(value, list) else value
