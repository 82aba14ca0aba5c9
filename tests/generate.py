"""Makes the generated files: `python -m tests.generate`. A test fails when one has drifted."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalrun.grader_options import GRADER_OPTIONS
from evalrun.job.schema import build_job_schema
from evalrun.store.journal_fields import render_fields_markdown
from evalrun.store.tables import render_schema_markdown
from tests.lane_page import render_lanes_markdown
from tests.provider_pages import render_parameters_markdown, render_profiles_markdown
from tests.quirk_page import render_quirks_markdown

ROOT = Path(__file__).resolve().parent.parent

JOB_PAGE_HEAD = """# The job file

Generated from `evalrun/options.py` and `evalrun/grader_options.py` by `python -m tests.generate`; do not edit.

YAML (`.yaml`, `.yml`), TOML (`.toml`) or JSON (`.json`) with the same keys. In YAML only `true` and `false` are
booleans and only JSON's number forms are numbers: `no`, `on`, `010`, `1_000` and dates stay text. Unknown keys,
duplicate keys and custom tags are errors. Paths are relative to the job file. `${NAME}` is read from the environment in
`endpoints`, paths and `vars`; `$${` is a literal `${`. Keys never stand in a job: `api_key_env` names the variable that
holds one.

Strings called *template* are Jinja templates over the sample's columns, `sample_id`, `repeat` and `vars`. A name that a
sample lacks is an error, found before the first request. Values that are not text are written as JSON writes them.

`evalrun schema` prints the same as a JSON Schema; a first line such as
`# yaml-language-server: $schema=./job.schema.json` lets an editor check a job while it is written.

## Words

| word | means |
|---|---|
| sample | one row of the dataset |
| row | one planned result: sample × prompt × model × repeat |
| arm | one model with one prompt: what a leaderboard ranks |
| lane | one endpoint with one model id: what is paced and stopped together |
| attempt | one HTTP exchange; a row may need several |

## Samples

Columns are yours to name. A few mean something: `id` (text, unique; without it a digest of the row is used), `category`
(figures are shown for each), `graders` (a list of graders for this sample alone) and the columns that `messages_column`
and `params_column` name. Columns may not be called `sample_id`, `repeat` or `vars`.

Graders of a dataset file take literal values: a template, `when` or a schema file in one is an error. Those of inline
`samples:` may use templates. A sample is checked by `defaults.graders`, then its own, then the job's `graders`.

CSV and TSV cells are text: `007` stays `007`. In an expression, write `level|int > 1`.

## Expressions

`where` (of the dataset), `--where` and `when` (of a grader) are Jinja expressions over the sample:
`category == 'json'`, `level > 2 and not is_hard`, `answer.isdigit()`, `id in ['a', 'b']`, `question|length < 200`.

The dataset's `where`, `limit` and `sample` apply in this order; inline samples follow; then `--where` and `--limit`.

## Content parts

`content` is text, or a list of parts: `text`, `image_url`, `input_audio`, `file`, each with templates inside its
strings. A local image is named by `image_file`, and is read below the job's `files_root` only:

```yaml
files_root: images
prompts:
  - name: describe
    messages:
      - role: user
        content:
          - {type: text, text: "What does the sign say?"}
          - {type: image_file, image_file: "{{ path }}"}     # sent as an image_url with a data: address
```
"""


def render_job_markdown(schema: Mapping[str, Any]) -> str:
    """Return the reference page of the job file.

    Args:
        schema: What `build_job_schema` returns.
    """
    definitions: Mapping[str, Any] = schema["$defs"]
    order = ["", *_order_records(schema, definitions)]
    common = _find_common_keys([definitions[record.__name__] for record in GRADER_OPTIONS.values()])
    sections = []
    for name in order:
        record = schema if not name else definitions[name]
        if name.removesuffix("Options") == "Exact":
            what = "Keys that every grader takes beside its own."
            sections.append(_render_record("Every grader", {"description": what, "properties": common}, definitions))
        sections.append(_render_record(name or "Job", record, definitions, left_out=common))
    return "\n".join([JOB_PAGE_HEAD, *sections])


def _find_common_keys(records: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keys that most records have alike; a record that has one otherwise shows it again."""
    first, *others = (record["properties"] for record in records)
    return {
        key: value for key, value in first.items() if sum(other.get(key) == value for other in others) > len(others) / 2
    }


def _order_records(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    """Return the records in the order in which a reader of the job meets them."""
    found: list[str] = []

    def visit(node: Any) -> None:
        for name in _find_references(node):
            if name not in found:
                found.append(name)
                visit(definitions[name])

    visit(schema["properties"])
    return found


def _find_references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "$ref" in node:
            yield str(node["$ref"]).rsplit("/", 1)[-1]
        for value in node.values():
            yield from _find_references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _find_references(value)


def _render_record(
    name: str, record: Mapping[str, Any], definitions: Mapping[str, Any], left_out: Mapping[str, Any] | None = None
) -> str:
    is_grader = record["properties"].get("type", {}).get("const") is not None
    lines = [
        f"## {_title(name)}",
        "",
        record.get("description", ""),
        "",
        "| key | type | default | what |",
        "|---|---|---|---|",
    ]
    required = set(record.get("required", ()))
    for key, value in record["properties"].items():
        default = "**required**" if key in required else f"`{json.dumps(value.get('default'), ensure_ascii=False)}`"
        if is_grader and left_out is not None and left_out.get(key) == value:
            continue
        what = " ".join(_describe(value, definitions).split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {_describe_type(value)} | {'' if default == '`null`' else default} | {what} |")
    return "\n".join([*lines, ""])


def _describe(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return a key's description, or that of the record it holds."""
    reference = value.get("$ref", "").rsplit("/", 1)[-1]
    return str(value.get("description") or definitions.get(reference, {}).get("description", ""))


def _title(name: str) -> str:
    return name.removesuffix("Options") or name


def _describe_type(value: Mapping[str, Any]) -> str:
    """Return a type in words: `integer ≥ 1`, `list of Model`, `text or Dataset`."""
    if "$ref" in value:
        title = _title(value["$ref"].rsplit("/", 1)[-1])
        return f"[{title}](#{title.lower()})"
    graders = {f"#/$defs/{record.__name__}" for record in GRADER_OPTIONS.values()}
    if {part.get("$ref") for part in value.get("anyOf", ())} == graders:
        return "[grader](#every-grader)"
    if "anyOf" in value:
        parts = [_describe_type(part) for part in value["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return " or ".join(f"`{word if isinstance(word, str) else json.dumps(word)}`" for word in value["enum"])
    return _describe_plain(value)


def _describe_plain(value: Mapping[str, Any]) -> str:
    kind = value.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        return f"list of {_describe_type(value.get('items', {}))}"
    if kind == "object":
        extra = value.get("additionalProperties")
        return f"object of {_describe_type(extra)}" if isinstance(extra, Mapping) else "object"
    words = {"string": "text", "number": "number", "integer": "integer", "boolean": "boolean", None: "any value"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return " ".join([words[kind], ", ".join(bounds)]).strip()


def render_journal_markdown() -> str:
    """Return the journal's page as it is, with the tables of fields made anew."""
    page = (ROOT / "docs/journal.md").read_text(encoding="utf-8")
    head, _, rest = page.partition("<!-- fields -->")
    _, _, tail = rest.partition("<!-- /fields -->")
    note = "Generated from `evalrun/store/journal_fields.py` by `python -m tests.generate`. `?`: may be absent."
    return f"{head}<!-- fields -->\n{note}\n\n{render_fields_markdown()}<!-- /fields -->{tail}"


def build_generated_files() -> dict[str, str]:
    """Return the path and the text of each generated file."""
    schema = build_job_schema()
    return {
        "configs/job.schema.json": json.dumps(schema, ensure_ascii=False, indent=2) + "\n",
        "docs/job.md": render_job_markdown(schema),
        "docs/journal.md": render_journal_markdown(),
        "docs/lanes.md": render_lanes_markdown(),
        "docs/parameters.md": render_parameters_markdown(),
        "docs/profiles.md": render_profiles_markdown(),
        "docs/quirks.md": render_quirks_markdown(),
        "docs/schema.md": render_schema_markdown(),
    }


if __name__ == "__main__":
    for name, text in build_generated_files().items():
        (ROOT / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {name}\n")
