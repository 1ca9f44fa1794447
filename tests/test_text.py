"""The text front-end: what is said, which phones, and that nothing crashes or is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmodal import text, text_normalise
from crossmodal.errors import TextError
from crossmodal.evaluation.speech_texts import NOT_SPEAKABLE, varied_texts


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Dr. Smith met Mrs. Jones, Jr.", "doctor smith met missus jones, junior."),
        ("It cost $12.50.", "it cost twelve dollars and fifty cents."),
        ("£1 or €0.99", "one pound or ninety nine cents"),
        ("$3.5 million", "three point five million dollars"),
        ("3/5/2024", "march fifth, twenty twenty four"),
        ("2024-03-05", "march fifth, twenty twenty four"),
        ("at 10:05 p.m. sharp", "at ten oh five pee em sharp"),
        ("12:00", "twelve o'clock"),
        ("the 21st century", "the twenty first century"),
        ("in 1984", "in nineteen eighty four"),
        ("the 1990s", "the nineteen nineties"),
        ("2,500 people", "two thousand five hundred people"),
        ("3.14", "three point one four"),
        ("-5°C", "minus five degrees celsius"),
        ("25%", "twenty five percent"),
        ("100 mph", "one hundred miles per hour"),
        ("1/2 and 3/4", "one half and three quarters"),
        ("10-15 days", "ten to fifteen days"),
        ("Henry VIII", "henry the eighth"),
        ("World War II", "world war two"),
        ("the FBI", "the eff bee eye"),
        ("NASA", "nasa"),
        ("THIS IS VERY LOUD", "this is very loud"),
        ("me@x.org", "me at ex dot org"),
        ("A man and a plan A", "a man and a plan ay"),
        ("Smith & Co.", "smith and company."),
        ("naïve café", "naive cafe"),
        ("wait... what?!", "wait. what?"),
        ("hello 😀", "hello"),
        ("5½ cups", "five and a half cups"),
        ("version 2.0.1.", "version two point zero point one."),
        ("3 km² of land", "three square kilometers of land"),
        ("call 555.123.4567", "call five five five, one two three, four five six seven"),
        ("AT&T's Q&A", "ay tee and tee's cue and ay"),
        ('<speak>Hello<break time="1s"/>you &amp; me</speak>', "hello, you and me"),
        ("a <b and c> d", "a less than bee and see greater than dee"),
    ],
)
def test_normalise(written: str, spoken: str) -> None:
    assert text.normalise(written) == spoken


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_normalised_or_refused(written: str) -> None:
    clean = text.normalise(written)
    assert re.fullmatch(r"[a-z'.,?! ]*", clean)
    assert text.normalise(clean) == clean
    if re.search("[a-z]", clean):
        for sentence in text.sentences(written):
            assert any(phone != 0 for phone in text.encode(sentence).phones)
    else:
        with pytest.raises(TextError):
            text.sentences(written)


@pytest.mark.parametrize("written", NOT_SPEAKABLE)
def test_text_without_words_is_an_error(written: str) -> None:
    with pytest.raises(TextError):
        text.sentences(written)
    with pytest.raises(TextError):
        text.encode(written)


def test_every_varied_text_gets_phones_for_every_word() -> None:
    for written in varied_texts(60):
        for word in text.words(written):
            names = text.pronounce(word).split()
            assert names, word
            assert all(name.rstrip("012") in text.PHONES for name in names), word


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("trail", "T R EY1 L"),
        ("cats", "K AE1 T S"),
        ("facebooking", None),
        ("zzyzx", None),
        ("brrr", None),
        ("o'neil's", None),
        ("pneumonoultramicroscopicsilicovolcanoconiosis", None),
    ],
)
def test_pronounce(word: str, expected: str | None) -> None:
    spoken = text.pronounce(word)
    assert expected is None or spoken == expected
    assert sum(name.endswith("1") for name in spoken.split()) >= 1


def test_inflections_follow_the_stem() -> None:
    assert text.pronounce("walking's").endswith("IH0 NG Z")
    assert text._inflected("laptops") == text.pronounce("laptop") + " S"
    assert text._inflected("xyz") is None


def test_encode_marks_stress_word_ends_and_punctuation() -> None:
    tokens = text.encode("Hello, is it you?")
    assert str(tokens) == "SIL HH AH L OW1 SIL IH1 Z IH1 T Y UW1 SIL"
    marks = [text.PUNCTUATION[p] for p in tokens.punctuation]
    assert marks == ["", ",", ",", ",", ",", ",", *["?"] * 7]
    assert [i for i, final in enumerate(tokens.word_final) if final] == [0, 4, 5, 7, 9, 11, 12]
    assert len(tokens) == len(tokens.stress) == len(tokens.word_final) == 13


def test_sentences_are_cut_where_a_reader_breathes() -> None:
    pieces = text.sentences("One two three. Four, five! " + "word " * 20 + ", and " + "word " * 20)
    assert pieces[:2] == ["one two three.", "four, five!"]
    assert all(len(piece.split()) <= text.MAX_WORDS for piece in pieces)
    assert " ".join(pieces).replace(",", "").count("word") == 40
    assert text.sentences(pieces[0]) == [pieces[0]]


def test_long_texts_lose_no_words() -> None:
    written = " ".join(varied_texts(40)[:40])
    whole = text.words(written)
    assert [word for piece in text.sentences(written) for word in text.words(piece)] == whole


def test_letters_of_other_scripts_are_reported() -> None:
    assert text.unspeakable("5 Ω, 你好 你 world") == ["Ω", "你", "好"]
    assert text.unspeakable("Café straße, £5 and naïve 😀!") == []


def test_markup_is_reported() -> None:
    assert text_normalise.markup('<speak>Hi <break time="1s"/></speak>, 1 < 2 and 3 > 2') == [
        "<speak>",
        '<break time="1s"/>',
        "</speak>",
    ]
