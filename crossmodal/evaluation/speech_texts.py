"""Two hundred varied texts for checking that speech is neither dropped, repeated nor drawn out."""

from __future__ import annotations

import random

_SUBJECTS = (
    "The old captain", "My sister", "A tall stranger", "Nobody in the village", "The committee",
    "Every second passenger",
    "Dr. Müller", "The quiet girl", "Mrs. O'Neil", "Our neighbour's dog", "The engineer", "This machine",
)  # fmt: skip
_VERBS = (
    "walked", "carried the heavy basket", "sang", "argued", "waited", "looked", "repaired the clock",
    "wrote a long letter",
    "laughed quietly", "measured the distance", "forgot the keys", "ran",
)  # fmt: skip
_PLACES = (
    "across the frozen river", "behind the station", "under the bridge", "through the narrow streets",
    "at the edge of the sea",
    "in front of the museum", "near the lighthouse", "beyond the hills", "on the third floor", "inside the greenhouse",
)  # fmt: skip
_TIMES = (
    "before sunrise",
    "all night",
    "on Tuesday",
    "for three hours",
    "at half past six",
    "in the spring of 1987",
    "again",
)
_NAMES = (
    "Zbigniew Brzezinski", "Siobhan Nguyen", "Xavier Quixote", "Priya Raghunathan", "Björn Åkesson",
    "Yevgeny Shcherbakov",
    "Chimamanda Adichie", "Guillermo del Río", "Tchaikovsky", "Wojciech Kowalczyk", "Mary Smith", "Llewellyn Jones",
)  # fmt: skip
_ONE_WORD = (
    "Yes.", "No!", "Why?", "Hello", "Strengths", "Queue", "Aye", "Rhythm", "Antidisestablishmentarianism", "Sixths",
    "I", "Go",
    "Xylophone", "Psychology", "Though", "Wednesday", "Colonel", "Oh", "Crossmodal", "Zzz",
)  # fmt: skip
_SYMBOLS = (
    "Dr. Smith paid $12.50 for 3 kg of apples on 3/5/2024 at 10:30 a.m.",
    "The U.S. GDP grew 2.5% in 2019, i.e. less than the E.U. had hoped.",
    "Mail me at jane.doe@example.org or visit https://www.example.com/a_b?c=1.",
    "Call 555-123-4567 & ask for Mr. Jones, Jr., etc.",
    "It's -5°C outside; that's 23°F!",
    "NASA, the FBI and IBM met at 5th Ave. & 42nd St., N.Y.",
    "World War II ended in 1945; King Henry VIII died in 1547.",
    "1/2 + 3/4 = 5/4, or 1.25, isn't it?",
    "Version 2.0.1 (beta) fixes 37 bugs --- really!",
    "He said: \"Wait... what?!\" and left.",
    "Temperatures of 10-15 degrees, winds of 30 km/h, 80% humidity.",
    "The year 2005, the 1990s, the 21st century, and A.D. 79.",
    "Flight BA2490 departs at 23:05 from gate B12.",
    "E=mc^2 is Einstein's; H2O is water; CO2 isn't.",
    "Chapter IV: £3.99, €1,000,000 and ¥500.",
    "Smile 😀 and be happy 🎉🎉 — naïve café façade, señor!",
    "The ISBN is 978-3-16-148410-0.",
    "AND THEN HE SHOUTED VERY LOUDLY",
    "www.openstreetmap.org",
    "0.001 < x <= 1e3 ~ maybe #7 @home *star*",
)  # fmt: skip
NOT_SPEAKABLE = ("", "   ", "...", "?!", "—", "😀😀", "\n\t", "…", "()[]{}", "。、")
"""Texts that must raise :class:`~crossmodal.errors.TextError`."""


def _sentence(rng: random.Random) -> str:
    parts = [rng.choice(_SUBJECTS), rng.choice(_VERBS), rng.choice(_PLACES), rng.choice(_TIMES)]
    return " ".join(parts) + rng.choice((".", ".", "!", "?"))


def _numbers(rng: random.Random) -> str:
    kind = rng.randrange(5)
    n = rng.randrange(1, 10 ** rng.randrange(1, 8))
    return (
        f"There were {n:,} of them, or about {rng.random() * 100:.2f} percent.",
        f"On {rng.randrange(1, 28)} {rng.choice(('March', 'June', 'May'))} {rng.randrange(1800, 2030)} it was cold.",
        f"Meet at {rng.randrange(1, 12)}:{rng.randrange(60):02d} {rng.choice(('am', 'p.m.', ''))}",
        " ".join(str(rng.randrange(10)) for _ in range(rng.randrange(3, 12))),
        f"${rng.randrange(1, 5000)}.{rng.randrange(100):02d} is the {rng.randrange(1, 100)}th price.",
    )[kind]  # fmt: skip


def varied_texts(count: int = 200, seed: int = 0) -> list[str]:
    """One word, sentences, numbers and dates, abbreviations and symbols, names, 100 words; the same for the same
    seed."""
    rng = random.Random(seed)
    makers = (
        lambda: rng.choice(_ONE_WORD),
        lambda: _sentence(rng),
        lambda: _numbers(rng),
        lambda: rng.choice(_SYMBOLS),
        lambda: f"{rng.choice(_NAMES)} met {rng.choice(_NAMES)} {rng.choice(_TIMES)}.",
        lambda: f"{_sentence(rng)} {_sentence(rng)} {_numbers(rng)}",
        lambda: ", ".join(rng.choice(_SUBJECTS).lower() for _ in range(rng.randrange(2, 6))),
    )  # fmt: skip
    texts = [makers[i % len(makers)]() for i in range(count - min(count, 10))]
    for i in range(min(count, 10)):  # about 100 words, some without any punctuation
        long = " ".join(_sentence(rng) for _ in range(10))
        texts.append(long if i % 2 else "".join(c for c in long if c not in ".!?,"))
    return texts
