"""The machine readable zone of travel documents: ICAO Doc 9303, parts 3, 4 (TD3), 5 (TD1), 6 (TD2).

    lines -> format by size -> fields by place -> check digits -> dates, names -> Mrz

What the check digits do not cover: document code, state, names, nationality, sex. A zone that
passes them all is well formed; it is no proof that the document is genuine.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

Kind = Literal["letters", "digits", "any", "sex"]
Format = Literal["TD1", "TD2", "TD3"]
FILLER = "<"
WEIGHTS = (7, 3, 1)
EXPIRY_YEARS = 50  # an expiry date lies at most that far ahead; else it is of the last century


class MrzError(ValueError):
    """These lines are no machine readable zone: their number, size or characters do not fit."""


@dataclass(frozen=True)
class Field:
    """Characters `start` to `end` of the zone's lines written one after the other."""

    name: str
    start: int
    end: int
    kind: Kind


@dataclass(frozen=True)
class Check:
    """The digit at `place` checks the characters of `spans`."""

    name: str
    spans: tuple[tuple[int, int], ...]
    place: int

    def covered(self, zone: str) -> str:
        return "".join(zone[start:end] for start, end in self.spans)


@dataclass(frozen=True)
class Layout:
    rows: int
    columns: int
    fields: tuple[Field, ...]
    checks: tuple[Check, ...]


def _two_rows(columns: int, optional_end: int, *more: Check) -> Layout:
    """TD2 and TD3 differ in the width of their rows and in what follows the expiry date."""
    n = columns  # where the second row starts
    fields = (
        Field("document_code", 0, 2, "letters"),
        Field("state", 2, 5, "letters"),
        Field("names", 5, n, "letters"),
        Field("number", n, n + 9, "any"),
        Field("nationality", n + 10, n + 13, "letters"),
        Field("birth_date", n + 13, n + 19, "digits"),
        Field("sex", n + 20, n + 21, "sex"),
        Field("expiry_date", n + 21, n + 27, "digits"),
        Field("personal_number", n + 28, n + optional_end, "any"),
    )
    last = 2 * n - 1
    checks = (
        Check("number", ((n, n + 9),), n + 9),
        Check("birth_date", ((n + 13, n + 19),), n + 19),
        Check("expiry_date", ((n + 21, n + 27),), n + 27),
        *more,
        Check("composite", ((n, n + 10), (n + 13, n + 20), (n + 21, last)), last),
    )
    return Layout(2, columns, fields, checks)


LAYOUTS: dict[Format, Layout] = {
    "TD1": Layout(
        3,
        30,
        (
            Field("document_code", 0, 2, "letters"),
            Field("state", 2, 5, "letters"),
            Field("number", 5, 14, "any"),
            Field("personal_number", 15, 30, "any"),
            Field("birth_date", 30, 36, "digits"),
            Field("sex", 37, 38, "sex"),
            Field("expiry_date", 38, 44, "digits"),
            Field("nationality", 45, 48, "letters"),
            Field("optional", 48, 59, "any"),
            Field("names", 60, 90, "letters"),
        ),
        (
            Check("number", ((5, 14),), 14),
            Check("birth_date", ((30, 36),), 36),
            Check("expiry_date", ((38, 44),), 44),
            Check("composite", ((5, 30), (30, 37), (38, 45), (48, 59)), 59),
        ),
    ),
    "TD2": _two_rows(36, 35),
    "TD3": _two_rows(44, 42, Check("personal_number", ((72, 86),), 86)),
}


@dataclass
class Mrz:
    """What the zone says. Dates are ISO 8601, shortened where the document leaves parts unknown."""

    format: Format
    document_code: str
    state: str
    surname: str
    given_names: str
    number: str
    nationality: str
    birth_date: str
    sex: Literal["M", "F", "X"]
    expiry_date: str
    personal_number: str
    optional: str
    checks: dict[str, bool]  # by field, and "composite"
    valid: bool  # every check digit is right and every date exists
    lines: list[str]
    repaired: list[str] = field(
        default_factory=list
    )  # where reading was mended: "birth_date: O -> 0"


def parse(lines: list[str], today: date | None = None) -> Mrz:
    """Reads two or three clean lines. `today` decides the century of dates; raises `MrzError`."""
    kind = format_of(lines)
    layout, zone = LAYOUTS[kind], "".join(lines)
    if not set(zone) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789<"):
        raise MrzError("a machine readable zone has only A-Z, 0-9 and <")
    raw = {f.name: zone[f.start : f.end] for f in layout.fields}
    checks = {check.name: passes(check, zone) for check in layout.checks}
    number, personal = raw["number"].rstrip(FILLER), raw["personal_number"]
    if (long := _long_number(kind, zone, layout)) is not None:
        number, personal, checks["number"] = long
    surname, given_names = split_names(raw["names"])
    today = today or date.today()
    birth = read_date(raw["birth_date"], latest=today)
    expiry = read_date(raw["expiry_date"], latest=date(today.year + EXPIRY_YEARS, 12, 31))
    return Mrz(
        format=kind,
        document_code=raw["document_code"].strip(FILLER),
        state=raw["state"].strip(FILLER),
        surname=surname,
        given_names=given_names,
        number=number,
        nationality=raw["nationality"].strip(FILLER),
        birth_date=birth or "",
        sex="M" if raw["sex"] == "M" else "F" if raw["sex"] == "F" else "X",
        expiry_date=expiry or "",
        personal_number=personal.strip(FILLER),
        optional=raw.get("optional", "").strip(FILLER),
        checks=checks,
        valid=all(checks.values()) and birth is not None and expiry is not None,
        lines=list(lines),
    )


def format_of(lines: list[str]) -> Format:
    """The layout whose size the lines have."""
    for kind, layout in LAYOUTS.items():
        if [len(line) for line in lines] == [layout.columns] * layout.rows:
            return kind
    raise MrzError(f"no format has lines of {[len(line) for line in lines]} characters")


def passes(check: Check, zone: str) -> bool:
    """Whether the check digit is right. For an empty personal number `<` stands for 0 (9303-4)."""
    covered, found = check.covered(zone), zone[check.place]
    if check.name == "personal_number" and found == FILLER:
        return not covered.strip(FILLER)
    return check_digit(covered) == found


def check_digit(text: str) -> str:
    """9303-3, 4.9: weights 7 3 1; 0-9 count as such, A-Z as 10-35, < as 0; the sum modulo 10."""
    total = sum(_value(letter) * WEIGHTS[n % 3] for n, letter in enumerate(text))
    return str(total % 10)


def _value(letter: str) -> int:
    return 0 if letter == FILLER else int(letter, 36)


def _long_number(kind: Format, zone: str, layout: Layout) -> tuple[str, str, bool] | None:
    """TD1 and TD2: a number over nine characters goes on in the optional data (9303-5, note j).

    The check digit's own place then holds `<`, and the check digit follows the number's last
    character. Gives (number, rest of the optional data, check passed), or None if it is not so.
    """
    place = next(c.place for c in layout.checks if c.name == "number")
    places = {f.name: f for f in layout.fields}
    if kind == "TD3" or zone[place] != FILLER:
        return None
    optional = zone[places["personal_number"].start : places["personal_number"].end]
    tail, _, rest = optional.partition(FILLER)
    if len(tail) < 2:
        return None
    number = zone[places["number"].start : places["number"].end] + tail[:-1]
    return number, rest, check_digit(number) == tail[-1]


def split_names(text: str) -> tuple[str, str]:
    """`ERIKSSON<<ANNA<MARIA<<<` -> ("ERIKSSON", "ANNA MARIA"); after a second `<<` stands noise."""
    surname, *given = text.strip(FILLER).split("<<")
    given_names = given[0] if given else ""
    return surname.replace(FILLER, " ").strip(), given_names.replace(FILLER, " ").strip()


def read_date(text: str, latest: date) -> str | None:
    """YYMMDD as an ISO date in the hundred years up to `latest`; None if there is no such day.

    Parts that the document leaves unknown (`<<`) are left out: "1974", "1974-08", "" (9303-3).
    """
    parts = [text[n : n + 2] for n in (0, 2, 4)]
    known = [part for part in parts if part != FILLER * 2]
    if not all(part.isdigit() for part in known) or parts[: len(known)] != known:
        return None
    if not known:
        return ""
    year = latest.year - (latest.year - int(known[0])) % 100
    month, day = (int(part) for part in [*known[1:], "01", "01"][:2])
    try:
        if date(year, month, day) > latest:
            year -= 100
        exact = date(year, month, day)
    except ValueError:
        return None
    return "-".join([f"{exact.year:04d}", *known[1:]])


SPELLED = str.maketrans(
    # 9303-3, 6.A: letters whose transliteration is not the letter without its accent
    {"Ä": "AE", "Å": "AA", "Æ": "AE", "Ö": "OE", "Ø": "OE", "Œ": "OE", "Ü": "UE", "ß": "SS",
     "ẞ": "SS", "Þ": "TH", "Ð": "D", "Đ": "D", "Ł": "L", "Ħ": "H", "Ŧ": "T", "Ŋ": "N",
     "Ĳ": "IJ", "\u0131": "I", "İ": "I", "'": "", "\u2019": "", ".": "",
     "-": "<", " ": "<", ",": "<"}
)  # fmt: skip


def transliterate(name: str) -> str:
    """A name of the visual zone as the MRZ writes it: `D'ÅRCY-LÖW` -> `DAARCY<LOEW`."""
    spelled = unicodedata.normalize("NFC", name).upper().translate(SPELLED)
    plain = unicodedata.normalize("NFD", spelled)
    letters = "".join(c for c in plain if c == FILLER or (c.isascii() and c.isalpha()))
    return FILLER.join(part for part in letters.split(FILLER) if part)
