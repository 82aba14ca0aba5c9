"""The job file's JSON Schema."""

import jsonschema
import pytest
from ruamel.yaml import YAML

from evalrun.job.schema import build_job_schema
from tests.job.conftest import BODY, SAMPLE


def test_job_schema_describes_the_keys() -> None:
    """Editors get titles, bounds, descriptions and the refusal of unknown keys."""
    schema = build_job_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == "evalrun job"
    assert schema["additionalProperties"] is False
    assert "epochs" in schema["properties"]
    assert "not" in schema["$defs"]["ExactOptions"]["properties"]
    assert schema["$defs"]["EndpointOptions"]["properties"]["concurrency"]["description"]


def test_job_schema_accepts_and_refuses_as_the_loader_does() -> None:
    """A small job fits the schema, one with a typo does not."""
    job = YAML(typ="safe").load(BODY + SAMPLE)
    jsonschema.validate(job, build_job_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**job, "nme": "x"}, build_job_schema())
