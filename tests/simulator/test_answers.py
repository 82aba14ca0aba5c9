"""Tests of right and wrong answers."""

import json
import re
import string
import unicodedata
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.simulator.answers import Style, make_right_text, make_wrong_text
from evalrun.simulator.draws import draw_uniform

STYLES: tuple[Style, ...] = ("plain", "sentence", "reasoned")
styles = st.sampled_from(STYLES)
scripts = st.text(
    st.sampled_from("กรุงเทพมหานคร๐๑๒ 三十二北京上海 Москва Αθήνα القاهرة दिल्ली 서울 さくら abcdeXYZ.,-%"), min_size=1
)
json_leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | st.text()
json_values = st.recursive(
    json_leaves, lambda child: st.lists(child, max_size=3) | st.dictionaries(st.text(), child, max_size=3)
)


def pick_for(digest: bytes) -> Any:
    """Return the picks of one request."""
    return partial(draw_uniform, digest)


def fold(text: str) -> str:
    """Return a text as a lenient grader compares it."""
    return unicodedata.normalize("NFKC", text).casefold()


@given(st.text().filter(str.strip) | scripts.filter(str.strip), styles, st.binary())
def test_wrong_text_never_holds_the_right_answer(answer: str, style: Style, digest: bytes) -> None:
    """Whatever the answer's script and the style, a wrong reply does not contain it, case or not."""
    wrong, right = make_wrong_text(answer, style, pick_for(digest)), answer.strip()
    if re.fullmatch(r"[(\[]?[A-Za-z][)\].:]?", right):
        assert right not in wrong
    else:
        assert right.lower() not in wrong.lower()
        assert fold(right) not in fold(wrong)


@given(st.decimals(-(10**9), 10**9, places=2) | st.integers(), styles, st.binary())
def test_wrong_number_is_another_number_and_comes_last(answer: object, style: Style, digest: bytes) -> None:
    """A numeric grader reads another number than the right one from a wrong reply."""
    wrong = make_wrong_text(str(answer), style, pick_for(digest))
    last = re.findall(r"[-+]?\d+(?:\.\d+)?", wrong)[-1]
    assert Fraction(last) != Fraction(str(answer))


@pytest.mark.parametrize("answer", ["1,234.50", "$18", "-7", "−3", "12 %", "1/2", "1e3", "0.5", "007", "€ 1,000"])
def test_wrong_number_keeps_the_form_of_the_right_one(answer: str) -> None:
    """Currency, sign, grouping, decimals and unit stay, so that a wrong reply is as plausible as a right one."""

    def shape(text: str) -> str:
        return re.sub(r"[\d,]+", "9", text)

    for i in range(30):
        assert shape(make_wrong_text(answer, "plain", pick_for(b"%d" % i))) == shape(answer)


@pytest.mark.parametrize(("answer", "zero"), [("๑๒", "๐"), ("٣٤", "٠"), ("４２", "０")])
def test_wrong_number_keeps_its_script(answer: str, zero: str) -> None:
    """Thai, Arabic-Indic and full-width numbers are answered in their own digits."""
    digits = {chr(ord(zero) + n) for n in range(10)}
    for i in range(30):
        assert set(make_wrong_text(answer, "plain", pick_for(b"%d" % i))) <= digits


@given(st.sampled_from(string.ascii_letters), st.binary())
def test_wrong_choice_is_another_letter(letter: str, digest: bytes) -> None:
    """A choice is answered by another choice, in the same case."""
    wrong = make_wrong_text(letter, "plain", pick_for(digest))
    assert (len(wrong), wrong.isalpha(), wrong.isupper()) == (1, True, letter.isupper())
    assert wrong != letter


@given(json_values.filter(lambda value: isinstance(value, dict | list)), styles, st.binary())
def test_wrong_json_differs_in_value_and_stays_json(value: Any, style: Style, digest: bytes) -> None:
    """A wrong JSON reply parses, alone or in a fence, and does not equal the right value."""
    answer = json.dumps(value, ensure_ascii=False)
    wrong = make_wrong_text(answer, style, pick_for(digest))
    assert json.loads(wrong.removeprefix("```json\n").removesuffix("\n```")) != value


def test_wrong_json_keeps_names_and_types() -> None:
    """One value changes and keeps its type, another one for another draw, so that a schema often still holds."""
    value = {"name": "Ada", "age": 36, "is_member": True, "score": 1.5, "tags": ["x", [2]]}
    wrongs = [json.loads(make_wrong_text(json.dumps(value), "plain", pick_for(b"%d" % i))) for i in range(60)]
    changed = {key for wrong in wrongs for key in value if wrong[key] != value[key]}
    assert changed == set(value)
    assert {sum(wrong[key] != value[key] for key in value) for wrong in wrongs} == {1}
    assert all(type(wrong[key]) is type(value[key]) for wrong in wrongs for key in value)


@pytest.mark.parametrize(
    ("answer", "wrong"), [("yes", "no"), ("No", "Yes"), ("TRUE", "FALSE"), ("positive", "negative")]
)
def test_wrong_label_is_the_opposite(answer: str, wrong: str) -> None:
    """Two-sided labels are answered by their other side, in the same case."""
    assert make_wrong_text(answer, "plain", pick_for(b"")) == wrong


@pytest.mark.parametrize(
    ("answer", "first", "last"), [("กรุงเทพ", "ก", "๛"), ("北京", "一", "鿿"), ("三", "一", "鿿"), ("Москва", "А", "я")]
)
def test_wrong_word_is_of_the_same_script(answer: str, first: str, last: str) -> None:
    """A Thai answer is wrong in Thai, a Chinese numeral in Chinese."""
    for i in range(20):
        wrong = make_wrong_text(answer, "plain", pick_for(b"%d" % i))
        assert all(first <= char <= last for char in wrong)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("72", "The answer is 72."), ("U.S.", "The answer is U.S."), ('{"a": 1}', '```json\n{"a": 1}\n```')],
)
def test_sentence_wraps_the_answer(answer: str, expected: str) -> None:
    """The style `sentence` says the answer last, and leaves JSON parseable."""
    assert make_right_text(answer, "sentence", pick_for(b"")) == expected


@given(st.sampled_from(["72", "-1,234.5", "B", "กรุงเทพ", "Paris"]), st.binary())
def test_reasoning_holds_no_number_and_no_choice(answer: str, digest: bytes) -> None:
    """The style `reasoned` ends in the answer, and its reasoning cannot be read as a number or a letter."""
    reasoning, last = make_right_text(answer, "reasoned", pick_for(digest)).split("\n")
    assert last == f"Answer: {answer}"
    assert not re.search(r"\d|\b[A-Za-z]\b", reasoning)


@given(st.text())
def test_plain_right_text_is_the_answer_byte_for_byte(answer: str) -> None:
    """The style `plain` changes nothing, white space included."""
    assert make_right_text(answer, "plain", pick_for(b"")) == answer


def test_json_with_a_fence_of_its_own_is_not_fenced() -> None:
    """A fence around a fence would not be parseable."""
    answer = '{"code": "```py```"}'
    assert make_right_text(answer, "reasoned", pick_for(b"")) == answer


def test_json_nested_too_deep_is_answered_with_a_word() -> None:
    """A hostile answer costs no crash."""
    deep = "[" * 900 + "]" * 900
    assert deep not in make_wrong_text(deep, "plain", pick_for(b""))
