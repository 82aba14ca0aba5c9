"""The table of parameters: what is a fault, of which kind, and what is none."""

from typing import Any

import pytest

from evalrun.chat_params import CHAT_PARAMS, MESSAGE, check_params, find_misspelled
from evalrun.chat_shapes import FaultKind, Integer, List, ParamFault, Record, Text

IN_PREDICTION = ("prediction", "content", 0, "type")
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def find_faults(params: dict[str, Any]) -> list[tuple[tuple[str | int, ...], FaultKind]]:
    """Return path and kind of each fault."""
    return [(fault.path, fault.kind) for fault in check_params(params)]


@pytest.mark.parametrize(
    ("params", "path", "kind"),
    [
        ({"temperature": "0"}, ("temperature",), FaultKind.TYPE),
        ({"temperature": True}, ("temperature",), FaultKind.TYPE),
        ({"temperature": -0.1}, ("temperature",), FaultKind.BELOW),
        ({"top_p": 1.1}, ("top_p",), FaultKind.ABOVE),
        ({"n": 1.0}, ("n",), FaultKind.TYPE),
        ({"seed": 2**63}, ("seed",), FaultKind.ABOVE),
        ({"stop": ["a", None]}, ("stop", 1), FaultKind.TYPE),
        ({"stop": []}, ("stop",), FaultKind.TOO_FEW),
        ({"stop": list("abcde")}, ("stop",), FaultKind.TOO_MANY),
        ({"logit_bias": {"fifty": 1}}, ("logit_bias",), FaultKind.KEY),
        ({"logit_bias": {"50": 101}}, ("logit_bias", "50"), FaultKind.ABOVE),
        ({"metadata": {"k" * 65: "v"}}, ("metadata",), FaultKind.KEY),
        ({"metadata": {str(i): "" for i in range(17)}}, ("metadata",), FaultKind.TOO_MANY),
        ({"safety_identifier": "x" * 129}, ("safety_identifier",), FaultKind.TOO_LONG),
        ({"reasoning_effort": "much"}, ("reasoning_effort",), FaultKind.CHOICE),
        ({"tools": [TOOL, {"type": "function"}]}, ("tools", 1, "function"), FaultKind.MISSING),
        ({"tools": [{**TOOL, "function": {"name": "a b"}}]}, ("tools", 0, "function", "name"), FaultKind.PATTERN),
        ({"tool_choice": {"function": {}}}, ("tool_choice", "type"), FaultKind.MISSING),
        ({"tool_choice": {"type": 1}}, ("tool_choice", "type"), FaultKind.TYPE),
        ({"prediction": {"type": "content", "content": [{"type": "video"}]}}, IN_PREDICTION, FaultKind.CHOICE),
    ],
)
def test_fault_has_a_path_and_a_kind(params: dict[str, Any], path: tuple[str | int, ...], kind: FaultKind) -> None:
    """Each way in which a value differs from its documentation is one fault, at the very place."""
    assert find_faults(params) == [(path, kind)]


def test_all_faults_are_found_at_once() -> None:
    """Faults of several parameters, and several of one, are all reported, in the order of the parameters."""
    params = {"n": 0, "stop": [1, "a", 2], "temperature": "hot"}
    expected = [
        (("n",), FaultKind.BELOW),
        (("stop", 0), FaultKind.TYPE),
        (("stop", 2), FaultKind.TYPE),
        (("temperature",), FaultKind.TYPE),
    ]
    assert find_faults(params) == expected


def test_null_unknown_and_extra_keys_are_no_faults() -> None:
    """What is not documented is the server's business, and null counts as not given."""
    params = {
        **dict.fromkeys(CHAT_PARAMS),
        "top_k": "forty",
        "tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": None, "x": 1}},
    }
    assert check_params(params) == []


def test_fault_says_what_is_expected_and_what_came() -> None:
    """A fault carries the words, the limit and the value, so that each reader can put it in its own way."""
    assert check_params({"n": 200}) == [
        ParamFault(path=("n",), kind=FaultKind.ABOVE, expected="at most 128", got=200, bound=128, unit="integer")
    ]
    (fault,) = check_params({"stop": 5})
    assert fault.expected == "a string or an array of strings"
    (fault,) = check_params({"verbosity": "loud"})
    assert fault.choices == ("low", "medium", "high")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("temprature", "temperature"),
        ("Temperature", "temperature"),
        ("maxTokens", "max_tokens"),
        ("max-completion-tokens", "max_completion_tokens"),
        ("presense_penalty", "presence_penalty"),
        ("respone_format", "response_format"),
        ("seeds", "seed"),
        ("tool", "tools"),
        ("temperature", None),
        ("top_k", None),
        ("min_tokens", None),
        ("models", None),
        ("user_id", None),
        ("random_seed", None),
        ("prompt_logprobs", None),
        ("repetition_penalty", None),
        ("thinking", None),
        ("provider", None),
        ("x", None),
        ("", None),
    ],
)
def test_near_misspelling_is_recognised_and_other_servers_words_are_not(name: str, meant: str | None) -> None:
    """A slip of the finger names what was meant; parameters of other servers are left alone."""
    assert find_misspelled(name) == meant


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"role": "assistant"}, FaultKind.TYPE),
        ({"role": "assistant", "content": None, "tool_calls": []}, FaultKind.TOO_FEW),
        ({"role": "tool", "content": "x"}, FaultKind.MISSING),
        ({"role": "function", "name": "f"}, FaultKind.MISSING),
        ({"role": "robot", "content": "x"}, FaultKind.CHOICE),
    ],
)
def test_message_of_a_wrong_form_is_a_fault(message: dict[str, Any], kind: FaultKind) -> None:
    """Each role has a form of its own."""
    assert MESSAGE.check(message)[0].kind == kind


def test_every_shape_can_be_described() -> None:
    """The table in docs/parameters.md has words for every parameter."""
    assert all(param.shape.describe() for param in CHAT_PARAMS.values())
    shape = Record({"a": List(Integer(1), 1, 3)}, {"b": Text(5)})
    assert shape.describe() == "object with `a`, `b`?"
