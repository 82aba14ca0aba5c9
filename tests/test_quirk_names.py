"""Tests of the catalogue of quirks: what may be written, and what is refused."""

import pytest

from evalrun.quirk_names import QUIRK_NAMES, Mode, QuirkChoice, fits, parse_quirk


def test_catalogue_has_all_sixty_with_names_of_their_own() -> None:
    """Q01 to Q60 are there in order, each with a telling name and one sentence."""
    assert list(QUIRK_NAMES) == [f"Q{number:02}" for number in range(1, 61)]
    assert len({quirk.name for quirk in QUIRK_NAMES.values()}) == 60
    assert [quirk for quirk in QUIRK_NAMES.values() if not quirk.sentence.endswith(".")] == []


@pytest.mark.parametrize("quirk_id", QUIRK_NAMES)
def test_every_form_of_a_quirk_can_be_written(quirk_id: str) -> None:
    """Id and name mean the same, in any case, alone, with each variant and with a number where one is taken."""
    known = QUIRK_NAMES[quirk_id]
    for head in (quirk_id, quirk_id.lower(), known.name, known.name.upper(), f" {quirk_id} "):
        assert parse_quirk(head) == QuirkChoice(id=quirk_id)
        for variant in known.variants:
            assert parse_quirk(f"{head}:{variant.upper()}") == QuirkChoice(id=quirk_id, variant=variant)
            if known.number is not None:
                assert parse_quirk(f"{head}:{variant}:0.5") == QuirkChoice(id=quirk_id, variant=variant, number=0.5)
        if known.number is not None:
            assert parse_quirk(f"{head}:7") == QuirkChoice(id=quirk_id, number=7)


@pytest.mark.parametrize("text", ["Q00", "Q61", "Q1", "", "usage", "Q01Q02", "x" * 10_000])
def test_unknown_quirk_is_told_all_known_ones(text: str) -> None:
    """Whoever mistypes a quirk sees which there are, and not megabytes of what he wrote."""
    with pytest.raises(ValueError, match="there is no quirk") as raised:
        parse_quirk(text)
    message = str(raised.value)
    assert [quirk_id for quirk_id, quirk in QUIRK_NAMES.items() if f"{quirk_id} {quirk.name}" not in message] == []
    assert len(message) < 3000


def test_close_misspelling_gets_a_guess() -> None:
    """A name that is nearly right is answered with the right one."""
    with pytest.raises(ValueError, match=r"did you mean usage-absent\?"):
        parse_quirk("usage-abscent")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Q25:foo", "Q25 has no variant 'foo'; its variants are chunked, length, close, rst, clean, done"),
        ("Q01:foo", "Q01 has no variant 'foo'; it has none"),
        ("Q25:rst:1", "Q25 has no variant 'rst:1'"),
        ("Q48:between:0.5:1", "Q48 has no variant 'between:0.5'"),
        ("Q47:-1", "Q47 takes seconds between bytes from 0 to 3600, not '-1'"),
        ("Q47:nan", "from 0 to 3600, not 'nan'"),
        ("Q47:inf", "from 0 to 3600, not 'inf'"),
        ("Q48:later", "Q48 takes seconds from 0 to 3600, or one of first-byte, between, not 'later'"),
        ("Q25:", "Q25 has no variant ''"),
    ],
)
def test_unknown_variant_or_number_is_told_the_known_ones(text: str, says: str) -> None:
    """A variant or number that a quirk does not take is refused with those that it takes."""
    with pytest.raises(ValueError, match="quirk") as raised:
        parse_quirk(text)
    assert says in str(raised.value)


def test_modes_tell_which_replies_they_fit() -> None:
    """`both` fits all replies, the others theirs."""
    modes: tuple[Mode, ...] = ("both", "stream", "plain")
    assert [fits(mode, is_stream=True) for mode in modes] == [True, True, False]
    assert [fits(mode, is_stream=False) for mode in modes] == [True, False, True]
