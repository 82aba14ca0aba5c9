"""Renders docs/profiles.md and docs/parameters.md from the data that the code reads; `tests.generate` writes them."""

import json
from typing import Any

from evalrun.chat_params import CHAT_PARAMS
from evalrun.job.profiles import Fact, Profile, load_profiles

PROFILES_HEAD = """# Profiles of providers

Generated from `evalrun/job/profiles.toml` by `python -m tests.generate`; do not edit.

`profile: NAME` in an endpoint fills in what is known about a provider, so that the job need not say it:

```yaml
endpoints:
  groq: {profile: groq}            # base_url, api_key_env, and what Groq does not take
```

The endpoint's own keys come first. `base_url`, `api_key_env` and `stream_options` are taken from the profile only where
the endpoint does not write them; for a `simulator` endpoint, address and key are not taken at all. `rename_params`,
`headers` and `header_env` are merged entry by entry, the endpoint's winning. `drop_params` are added to the endpoint's.
`rename_params: {seed: seed}` cancels what the profile does to `seed`, be it renamed or dropped. An endpoint that names
a variable in `api_key_env` sends that key as `Authorization: Bearer`, and the profile's own way of sending it is left
out.

`plan`, `validate` and `run` warn of each parameter that is set but not sent. What is sent decides a request's key, so a
profile changes keys exactly as far as it changes requests.

Each fact was read where the last column says, on the day given; facts without a source stay out. Providers change:
a fact that no longer holds is overridden in the endpoint, and is a bug to report.
"""

PARAMETERS_HEAD = """# Parameters of a request

Generated from `evalrun/chat_params.py` by `python -m tests.generate`; do not edit.

`params` of a model and the `params_column` of a dataset take any parameter: what stands there is sent as it is written,
known or not. The ones below are documented by OpenAI, and so they are looked at before anything is sent:

* a value of another **type** is an error, with file, line and column;
* a value **out of range**, or a word that is not in the list, is a warning: other servers allow more;
* a name that is **nearly** one of these is a warning ("did you mean `temperature`?"); other unknown names are not.

`null` counts as not given. `model`, `messages`, `stream` and `stream_options` are set by the model, the prompt and the
endpoint. The simulator answers requests by the same table: under `/v1` as OpenAI does, under `/chat` as the gateway
does whose page shows empty objects (`stop: {}`, `tools: [{}]`) that ask for nothing.

| parameter | what may stand there | deprecated for |
|---|---|---|
"""


def render_profiles_markdown() -> str:
    """Return docs/profiles.md."""
    aliases: dict[str, list[str]] = {}
    profiles = load_profiles()
    for name, profile in profiles.items():
        aliases.setdefault(profile.name, []).extend([name] if name != profile.name else [])
    sections = [_render_profile(profiles[name], others) for name, others in aliases.items()]
    return "\n".join([PROFILES_HEAD, *sections])


def _render_profile(profile: Profile, aliases: list[str]) -> str:
    also = f" (also `{'`, `'.join(aliases)}`)" if aliases else ""
    lines = [f"## {profile.title}", "", f"`profile: {profile.name}`{also}", ""]
    if profile.facts:
        lines += ["| key | value | why | source, read |", "|---|---|---|---|"]
        lines += [
            f"| `{fact.key}` | {_render_value(fact.value)} | {_cell(fact.text)} | {_cite(fact)} |"
            for fact in profile.facts
        ]
        lines.append("")
    lines += [f"* {note.text} {_cite(note)}" for note in profile.notes]
    return "\n".join([*lines, ""]) if profile.notes else "\n".join(lines)


def _render_value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"`{key}: {json.dumps(item).strip(chr(34))}`" for key, item in value.items())
    return ", ".join(f"`{item}`" for item in value) if isinstance(value, list) else f"`{value}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _cite(fact: Fact) -> str:
    links = [f"[{_shorten(source)}]({source})" if "://" in source else source for source in fact.sources]
    return f"({', '.join(links)}; {fact.read_on})"


def _shorten(source: str) -> str:
    """Return what tells a source apart: `owner/name#12`, a file's name, or a page's host."""
    parts = source.split("://", 1)[1].strip("/").split("/")
    if parts[0] == "github.com" and parts[3] in ("issues", "pull"):
        return f"{parts[1]}/{parts[2]}#{parts[4]}"
    return f"{parts[1]}/{parts[2]}: {parts[-1]}" if parts[0] == "github.com" else parts[0]


def render_parameters_markdown() -> str:
    """Return docs/parameters.md."""
    rows = [
        f"| `{name}` | {_cell(param.shape.describe())} | {_cell(param.deprecated)} |"
        for name, param in CHAT_PARAMS.items()
    ]
    return PARAMETERS_HEAD + "\n".join(rows) + "\n"
