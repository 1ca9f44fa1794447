"""Written English → the words a reader would say: numbers, dates, times, money, units, abbreviations, symbols.

The result is lower case and holds only words (letters and apostrophes) and the punctuation ``, . ? !``; normalising it
again changes nothing. Ambiguous forms are read the American way (3/5/2024 is March fifth).
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections.abc import Callable

LETTERS = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        (
            "ay bee see dee ee eff gee aitch eye jay kay ell em en oh pee cue ar ess tee you vee doubleyou ex why zee"
        ).split(),
        strict=True,
    )
)
"""How the name of each letter is written once it has been spelled out."""

_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = (
    r"(?:Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?\.?|July?\.?|Aug(?:ust|\.)?|"
    r"Sept?(?:ember|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
)
_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "st": "saint",
    "jr": "junior", "sr": "senior", "vs": "versus", "etc": "et cetera", "inc": "incorporated", "ltd": "limited",
    "co": "company", "corp": "corporation", "dept": "department", "approx": "approximately", "gen": "general",
    "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "rev": "reverend", "hon": "honorable",
    "gov": "governor", "pres": "president", "sen": "senator", "rep": "representative", "fig": "figure",
    "vol": "volume", "ch": "chapter", "pp": "pages", "ave": "avenue", "blvd": "boulevard", "rd": "road",
    "mt": "mount", "ft": "fort", "jan": "january", "feb": "february", "mar": "march", "apr": "april", "jun": "june",
    "jul": "july", "aug": "august", "sep": "september", "sept": "september", "oct": "october", "nov": "november",
    "dec": "december", "mon": "monday", "tue": "tuesday", "wed": "wednesday", "thu": "thursday", "fri": "friday",
}  # fmt: skip
_UNITS = {
    "km/h": "kilometers per hour", "kmh": "kilometers per hour", "mph": "miles per hour", "m/s": "meters per second",
    "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "m": "meters", "mi": "miles", "ft": "feet",
    "in": "inches", "yd": "yards", "kg": "kilograms", "g": "grams", "mg": "milligrams", "lb": "pounds",
    "lbs": "pounds", "oz": "ounces", "l": "liters", "ml": "milliliters", "hz": "hertz", "khz": "kilohertz",
    "mhz": "megahertz", "ghz": "gigahertz", "kb": "kilobytes", "mb": "megabytes", "gb": "gigabytes",
    "tb": "terabytes", "w": "watts", "kw": "kilowatts", "kwh": "kilowatt hours", "v": "volts", "ms": "milliseconds",
    "s": "seconds", "sec": "seconds", "min": "minutes", "h": "hours", "hr": "hours", "hrs": "hours", "db": "decibels",
    "km2": "square kilometers", "m2": "square meters", "cm2": "square centimeters", "m3": "cubic meters",
    "cm3": "cubic centimeters", "°c": "degrees celsius", "°f": "degrees fahrenheit", "°": "degrees", "%": "percent",
}  # fmt: skip
_UNIT_NAMES = "|".join(sorted((re.escape(unit) for unit in _UNITS), key=len, reverse=True))
_AMBIGUOUS_UNITS = {"in", "m", "g", "l", "s", "h", "w", "v"}
"""Read as units only when they touch the number (5m) or stand before punctuation or the end."""
_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", "")}
_SYMBOLS = {
    "&": "and", "+": "plus", "=": "equals", "%": "percent", "@": "at", "#": "number", "<": "less than",
    ">": "greater than", "×": "times", "÷": "divided by", "≈": "approximately", "~": "approximately",
    "±": "plus or minus",
    "°": "degrees", "§": "section", "©": "copyright", "®": "registered", "™": "trademark", "€": "euros", "£": "pounds",
    "$": "dollars", "¥": "yen", "½": "one half", "¼": "one quarter", "¾": "three quarters", "^": "to the", "_": " ",
    "≤": "at most", "≥": "at least", "≠": "is not", "√": "square root of", "π": "pie", "µ": "micro", "→": "to",
}  # fmt: skip
_FRACTIONS = {2: ("half", "halves"), 4: ("quarter", "quarters")}
_SPOKEN_CAPITALS = {"OK": "okay", "TV": "tee vee", "PS": "pee ess"}
_WORDS_IN_CAPITALS = frozenset(
    "A I AM AN AND ARE AS AT BE BUT BY CAN DID DO FOR GET GO GOD HAD HAS HE HER HEY HIM HIS HOW IF IN IS IT ITS LET "
    "ME MY NEW NO NOT NOW OF OFF OH ON ONE OR OUR OUT SEE SHE SO THE TO TOO TWO UP USE WAS WAY WE WHO WHY YES YET "
    "YOU ALL ANY BIG DAY END EYE MAN MEN OLD OWN PUT RED RUN SAW SAY SET SIX SIT TEN TOP TRY WAR WIN".split()
)
_SAID_AS_WORDS = frozenset("NASA NATO UNESCO UNICEF OPEC AIDS LASER RADAR SCUBA PIN RAM ROM SIM GIF JPEG COVID".split())
_FOLDED = {
    "\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u2026": ". ", "\u2014": ", ", "\u2212": "-", "\u2013": "-",
    "\u2015": ", ", "½": " ½ ", "¼": " ¼ ", "¾": " ¾ ", "℃": "°C", "ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l",
    "đ": "d", "ð": "th", "þ": "th", "№": "No. ",
}  # fmt: skip
_IN_ADDRESSES = {
    ".": " dot ", "/": " slash ", "@": " at ", "-": " dash ", "_": " underscore ", ":": " colon ", "=": " equals ",
    "?": " question mark ", "&": " and ", "#": " hash ", "%": " percent ", "~": " tilde ", "+": " plus ",
}  # fmt: skip
_MARKUP = re.compile(r"""</?([A-Za-z][\w:-]*)(?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*/?>""")
_PAUSING_MARKUP = ("break", "br", "p", "s")
_ROMAN = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12, "XIII": 13,
          "XIV": 14, "XV": 15, "XVI": 16}  # fmt: skip


@functools.lru_cache(maxsize=1)
def _num2words() -> Callable[..., str]:
    from num2words import num2words

    return num2words


def _plain(words: str) -> str:
    return words.replace("-", " ").replace(",", "")


def cardinal(digits: str) -> str:
    """``"1204"`` → ``one thousand two hundred and four``; leading zeros and very long strings digit by digit."""
    digits = digits.replace(",", "")
    if len(digits) > 15 or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(_plain(_num2words()(int(d))) for d in digits)
    return _plain(_num2words()(int(digits)))


def ordinal(digits: str) -> str:
    """``"21"`` → ``twenty first``."""
    return _plain(_num2words()(int(digits.replace(",", "")), to="ordinal"))


def number(text: str) -> str:
    """A cardinal with an optional decimal part: ``"3.14"`` → ``three point one four``."""
    whole, _, decimals = text.partition(".")
    spoken = cardinal(whole or "0")
    return spoken + (" point " + " ".join(cardinal(d) for d in decimals) if decimals else "")


def year(digits: str) -> str:
    """``"1984"`` → ``nineteen eighty four``; ``"2005"`` → ``two thousand five``."""
    value = int(digits)
    if value % 1000 < 10 and value >= 1000:
        return cardinal(str(value // 1000 * 1000)) + (f" {cardinal(str(value % 1000))}" if value % 1000 else "")
    high, low = divmod(value, 100)
    if low == 0:
        return f"{cardinal(str(high))} hundred"
    return f"{cardinal(str(high))} {'oh ' if low < 10 else ''}{cardinal(str(low))}"


def spell(text: str) -> str:
    """Letter by letter, digit by digit: ``"x2"`` → ``ex two``."""
    return " ".join(
        LETTERS[c] if c in LETTERS else cardinal(c) for c in text.lower() if c in LETTERS or c in "0123456789"
    )


def _month(name: str) -> str:
    key = name.rstrip(".").lower()[:3]
    return next(month for month in _MONTHS if month.startswith(key))


def _address(match: re.Match[str]) -> str:
    """A URL or an e-mail address."""
    text = re.sub(r"^(?:https?://|ftp://)", "", match.group(0)).rstrip("/")
    tail = ""
    while text and text[-1] in ".,!?;:)":
        tail, text = text[-1] + tail, text[:-1]
    text = re.sub(r"^www\.", "doubleyou doubleyou doubleyou . ", text)
    text = "".join(_IN_ADDRESSES.get(c, c) for c in text)
    return " " + re.sub(r"\d", lambda m: f" {cardinal(m.group(0))} ", text).lower() + tail + " "


def _money(match: re.Match[str]) -> str:
    sign, amount, scale = match.group(1), match.group(2).replace(",", ""), match.group(3)
    unit, cent = _CURRENCIES[sign]
    plural = unit if unit == "yen" else f"{unit}s"
    if scale:
        scale = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion"}.get(scale.lower(), scale.lower())
        return f" {number(amount)} {scale} {plural} "
    whole, _, decimals = amount.partition(".")
    parts = []
    if int(whole) or not decimals:
        parts.append(f"{cardinal(whole)} {unit if int(whole) == 1 else plural}")
    if decimals and cent and int(decimals[:2].ljust(2, "0")):
        value = int(decimals[:2].ljust(2, "0"))
        many = "pence" if cent == "penny" else f"{cent}s"
        parts.append(f"{cardinal(str(value))} {cent if value == 1 else many}")
    return " " + (" and ".join(parts) or f"zero {plural}") + " "


def _time(match: re.Match[str]) -> str:
    hour, minute, half = match.group(1), match.group(2), match.group(3)
    if int(hour) > 24 or (minute and int(minute) > 59):
        return match.group(0).replace(":", " ")
    spoken = cardinal(str(int(hour)))
    if minute and int(minute):
        spoken += f" {'oh ' if int(minute) < 10 else ''}{cardinal(str(int(minute)))}"
    elif not half:
        spoken += " o'clock" if int(hour) <= 12 else " hundred"
    if half:
        spoken += " " + spell(half.replace(".", ""))
    return f" {spoken} "


def _calendar(month: int, day: str, full_year: str | None) -> str:
    spoken = f" {_MONTHS[month - 1]} {ordinal(day)}"
    return f"{spoken}, {year(full_year)} " if full_year else f"{spoken} "


def _iso_date(match: re.Match[str]) -> str:
    month, day = int(match.group(2)), int(match.group(3))
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match.group(0).replace("-", " ")
    return _calendar(month, str(day), match.group(1))


def _slash_date(match: re.Match[str]) -> str:
    month, day, full = int(match.group(1)), int(match.group(2)), match.group(3)
    if month > 12 and day <= 12:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match.group(0).replace("/", " slash ")
    return _calendar(month, str(day), full if len(full) == 4 else ("20" if int(full) < 50 else "19") + full)


def _fraction(match: re.Match[str]) -> str:
    above, below = int(match.group(1)), int(match.group(2))
    if below < 2 or below > 20 or above > 20:
        return f" {cardinal(match.group(1))} slash {cardinal(match.group(2))} "
    one, many = _FRACTIONS.get(below, (ordinal(str(below)), f"{ordinal(str(below))}s"))
    return f" {cardinal(str(above))} {one if above == 1 else many} "


def _unit(match: re.Match[str]) -> str:
    value, space, unit = match.group(1), match.group(2), match.group(3)
    key = unit.lower()
    after = match.string[match.end() : match.end() + 2].lstrip()
    if key in _AMBIGUOUS_UNITS and (space and (after[:1].isalnum() or key in ("in", "s"))):
        return match.group(0)
    spoken = _UNITS[key]
    if value.replace(",", "") == "1":
        spoken = {"feet": "foot", "inches": "inch", "hertz": "hertz"}.get(spoken, re.sub(r"s\b", "", spoken, count=1))
        spoken = _UNITS[key] if key == "%" else spoken.replace("degree celsiu", "degree celsius")
    return f" {number(value)} {spoken} "


def _plain_number(match: re.Match[str]) -> str:
    text = match.group(0)
    bare = text.replace(",", "")
    if text.isdigit() and len(text) == 4 and (1100 <= int(text) <= 1999 or 2010 <= int(text) <= 2099):
        return f" {year(text)} "
    return f" {number(bare)} "


def _capitals(match: re.Match[str], shouting: bool) -> str:
    """A word in capitals: an ordinary word shouted, a word made of initials, or letters to spell."""
    word, plural = match.group(1), match.group(2) or ""
    if word in _SPOKEN_CAPITALS:
        return _SPOKEN_CAPITALS[word] + plural
    if word in _WORDS_IN_CAPITALS or word in _SAID_AS_WORDS:
        return word.lower() + plural
    has_vowel = re.search("[AEIOUY]", word)
    if (shouting and has_vowel) or (len(word) > 4 and has_vowel) or len(word) > 6:
        return word.lower() + plural
    if len(word) == 4 and re.fullmatch("[^AEIOUY][AEIOUY]+[^AEIOUY][AEIOUY]?|[^AEIOU]{1,2}[AEIOU]+[^AEIOU]{1,2}", word):
        return word.lower() + plural
    return " " + spell(word) + ("'s" if plural else "") + " "


def _roman(match: re.Match[str]) -> str:
    before, numeral = match.group(1), match.group(2)
    counted = before.lower() in ("chapter", "part", "volume", "book", "act", "scene", "section", "war", "type", "phase")
    value = str(_ROMAN[numeral])
    return f"{before} {cardinal(value)}" if counted else f"{before} the {ordinal(value)}"


def _fold(text: str) -> str:
    """Unicode → ASCII letters and the symbols known here; what cannot be said (emoji, other scripts) becomes a
    space."""
    for old, new in _FOLDED.items():
        text = text.replace(old, new)
    kept = []
    for char in text:
        if char in _SYMBOLS or (char.isascii() and char.isprintable()):
            kept.append(char)
            continue
        if char.isspace():
            kept.append("\n" if char in "\n\u2028\u2029" else " ")
            continue
        for part in unicodedata.normalize("NFKD", char):
            if part.isascii() and part.isprintable():
                kept.append(part)
            elif unicodedata.category(part) not in ("Mn", "Cf", "Sk", "Lm") and part not in "\u20e3\ufe0f":
                kept.append("?" if part in "？" else "." if part in "。" else " ")
    return "".join(kept)


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), rule)
    for pattern, rule in (
        (r"(?:https?://|ftp://|www\.)\S+|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\b[a-z][\w-]*\.(?:com|org|net|edu|gov|io|co\.uk)\b\S*",
         _address),
        (r"\s*\n\s*\n\s*", lambda m: ". "),
        (r"(?<=\d)\s*([½¼¾])", lambda m: f" and {_SYMBOLS[m[1]].replace('one', 'a')} "),
        (r"\b([1-2]\d{3})-(\d{2})-(\d{2})\b", _iso_date),
        (r"\b(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})\b", _slash_date),
        (rf"\b({_MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?(?:,? (\d{{4}}))?\b",
         lambda m: f" {_month(m[1])} {ordinal(m[2])}" + (f", {year(m[3])} " if m[3] else " ")),
        (rf"\b(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({_MONTH})(?: (\d{{4}}))?(?![\w])",
         lambda m: f" the {ordinal(m[1])} of {_month(m[2])}" + (f", {year(m[3])} " if m[3] else " ")),
        (r"\b(\d{1,2}):(\d{2})(?::\d{2})?\s*([aApP]\.?[mM]\b\.?)?", _time),
        (r"\b(\d{1,2})()\s*([aApP]\.[mM]\.|[aApP][mM]\b)", _time),
        (r"([$£€¥])\s?(\d[\d,]*(?:\.\d+)?)(?:\s?(thousand|million|billion|trillion|[kKmM]\b|bn\b))?", _money),
        (r"\b(\d{3})[-. ](\d{3})[-. ](\d{4})\b", lambda m: " , ".join(spell(g) for g in m.groups())),
        (r"\b(\d{3})-(\d{4})\b", lambda m: " , ".join(spell(g) for g in m.groups())),
        (r"(?<![\d.])\d+(?:\.\d+){2,}(?![\d])", lambda m: f" {' point '.join(map(cardinal, m[0].split('.')))} "),
        (r"\b([A-Z]{1,3})&([A-Z]{1,3})\b", lambda m: f" {spell(m[1])} and {spell(m[2])}"),
        (r"\b(\d{3})0s\b", lambda m: f" {_decade(m[1] + '0')} "),
        (r"\b(\d[\d,]*)(?:st|nd|rd|th)\b", lambda m: f" {ordinal(m[1])} "),
        (r"\b(\d+(?:\.\d+)?)\s?[-]\s?(\d+(?:\.\d+)?)(?=\s|[.,!?;:)%]|$)", lambda m: f"{m[1]} to {m[2]}"),
        (r"(?<![\w.])-(?=\d)", lambda m: " minus "),
        (r"(?<![\d/])(\d{1,2})/(\d{1,2})(?![\d/])", _fraction),
        (r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(\s?)(" + _UNIT_NAMES + r")(?![\w°])", _unit),
        (r"(?i)(?<![\w.])(\d[\d,]*(?:\.\d+)?)(\s?)(km/h|kmh|mph|[kmg]hz|[kmgt]b|kwh|kw|db|hz|°c|°f)(?![\w°])", _unit),
        (r"\b([A-Z][a-z]+) (" + "|".join(sorted(_ROMAN, key=len, reverse=True)) + r")\b", _roman),
        (r"\b[Ee]\.g\.,?", lambda m: " for example, "),
        (r"\b[Ii]\.e\.,?", lambda m: " that is, "),
        (r"\b[Nn]o\. ?(?=\d)|\bNos?\. ?(?=\d)", lambda m: " number "),
        (r"\b(?:[A-Za-z]\.){2,}(?=(\s+[A-Z]|\s*$)?)",
         lambda m: f" {spell(m[0])}" + (". " if m[1] is not None and not m.string[m.end():].strip() else " ")),
        (r"\b([B-HJ-Z])\.(?=\s+[A-Z])", lambda m: f" {spell(m[1])} "),
        (r"\b([A-Z]?[a-z]{1,6})\.(?=(\s*$)|(\s+[A-Z])|.)",
         lambda m: _abbreviation(m)),
        (r"(?<![\w])\.(?=\d)", lambda m: " point "),
        (r"\d[\d,]*\d(?:\.\d+)?|\d(?:\.\d+)?", _plain_number),
    )
)  # fmt: skip


def _decade(digits: str) -> str:
    words = year(digits).split() if int(digits) % 100 else [*year(digits).split()]
    last = words[-1]
    return " ".join([*words[:-1], last[:-1] + "ies" if last.endswith("y") else last + "s"])


def _abbreviation(match: re.Match[str]) -> str:
    """Expanded; the full stop stays where it may also end the sentence (before the end, or ``etc.`` before a
    capital)."""
    known = match[1].lower() in _ABBREVIATIONS
    lower_case = match[1] != match[1].capitalize() and match[1] not in ("etc", "vs", "approx")
    if not known or (lower_case and match[2] is None):
        return match[0]
    spoken = _ABBREVIATIONS[match[1].lower()]
    if match[1].lower() == "st" and match.string[: match.start()].rstrip()[-1:].isalpha():
        spoken = "saint" if match[3] else "street"
    ends = match[2] is not None or (
        match[3] is not None and match[1].lower() in ("etc", "inc", "ltd", "co", "corp", "jr", "sr")
    )
    return f" {spoken}{'. ' if ends else ' '}"


def markup(text: str) -> list[str]:
    """The tags of SSML or HTML in ``text``, as they are written; :func:`normalise` leaves them out."""
    return [match.group(0) for match in _MARKUP.finditer(text)]


def normalise(text: str) -> str:
    """What a reader would say: lower-case words and ``, . ? !``; empty if nothing in ``text`` can be said."""
    if "&" in text or "<" in text:
        text = _MARKUP.sub(lambda m: " , " if m[1].lower() in _PAUSING_MARKUP else " ", text)
        text = html.unescape(text)
    text = _fold(text)
    capitals = sum(c.isupper() for c in text)
    shouting = capitals > 0.6 * max(1, sum(c.isalpha() for c in text)) and len(text.split()) > 2
    for pattern, rule in _RULES:
        text = pattern.sub(rule, text)
    text = re.sub(r"([.?!])\s*[\"')\]]+", r"\1 ", text)
    text = re.sub(r"\s+[-]+\s+|--+|[;:()\[\]{}|]|\s\"|\"\s", " , ", f" {text} ")
    text = re.sub(r"\b(\w+)/(\w+)\b", r"\1 \2", text)
    text = "".join(f" {_SYMBOLS[c]} " if c in _SYMBOLS else c for c in text)
    # a capital A is the letter unless it begins a sentence
    text = re.sub(r"(?<=[a-zA-Z0-9] )A(?=\s*[.,!?]|\s*$|\s[A-Z]\b)|(?<![\w'])A(?= [B-HJ-Z]\b)", " ay ", text)
    text = re.sub(r"(?<![\w'])([B-HJ-Z])(?![\w'])", lambda m: f" {LETTERS[m[1].lower()]} ", text)
    text = re.sub(r"(?<![\w'])([A-Z]{2,})((?:'?s)?)(?![\w'])", lambda m: _capitals(m, shouting), text)
    text = re.sub(r"[^a-z'.,?!\s]", " ", text.lower())
    text = re.sub(r"(?<![a-z])'+|'+(?![a-z])", " ", text)
    text = re.sub(r"(?<![\w'])([b-hj-z])(?![\w'])", lambda m: f" {LETTERS[m[1]]} ", text)  # a lone letter has no sound
    text = re.sub(r"\s*([.,?!])[\s.,?!]*", _punctuation, text)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"^[\s.,?!]+", "", text).strip()


def _punctuation(match: re.Match[str]) -> str:
    """One mark where there are several, the strongest: ``?!`` → ``?``, ``,.`` → ``.``."""
    marks = set(match.group(0))
    return next(mark for mark in "?!.," if mark in marks) + " "
