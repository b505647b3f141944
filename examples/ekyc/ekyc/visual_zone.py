"""The visual zone: which printed text is the surname, the number, a date; found by its label.

lines with boxes -> straightened -> labels known by their words -> the value below (or beside) each
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from difflib import SequenceMatcher

import numpy as np

from .mrz import Mrz, transliterate
from .mrz_reading import LOOK_ALIKES
from .text_boxes import Box

LABELS = {
    "surname": ("surname", "last name", "family name", "nom"),
    "given_names": ("given names", "given name", "first names", "forenames", "prénoms"),
    "number": ("passport no", "document no", "card no", "passport number", "passeport no"),
    "birth_date": ("date of birth", "birth date", "date de naissance", "naissance"),
    "issue_date": ("date of issue", "issued on", "date de délivrance", "délivrance"),
    "expiry_date": ("date of expiry", "valid until", "date d'expiration", "expiration"),
    "other": ("nationality", "nationalité", "sex", "sexe", "place of birth", "authority",
              "personal no", "no personnel", "autorité", "signature"),
}  # fmt: skip
LABEL_LIKENESS = 0.8
MONTHS = {
    name: n
    for n, name in enumerate(
        ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1
    )
}
WORDS_DATE = re.compile(r"^(\d{1,2})\s*([A-Z0-9]{3})[A-Z]*(?:\s*/\s*\w+)?\s*(\d{4})$")
DIGITS_DATE = re.compile(r"^(\d{1,2})\s*[./-]\s*(\d{1,2})\s*[./-]\s*(\d{4})$")


@dataclass
class VisualZone:
    """What is printed for people; "" where no known label has a value. Dates are ISO 8601."""

    surname: str = ""
    given_names: str = ""
    number: str = ""
    birth_date: str = ""
    issue_date: str = ""
    expiry_date: str = ""


@dataclass(frozen=True)
class Place:
    """A line's extent on the straightened page, px."""

    text: str
    left: float
    right: float
    top: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def read_visual_zone(lines: list[tuple[str, Box]]) -> VisualZone:
    """The fields of the visual zone in the text lines of a page."""
    places = straightened(lines)
    labels = [(label_of(place.text), place) for place in places]
    values = [place for label, place in labels if not label]
    zone = VisualZone()
    for label, place in labels:
        value = value_of(place, values) if label and label != "other" else None
        if value and not getattr(zone, label):
            setattr(zone, label, read_date(value) if label.endswith("_date") else value)
    return zone


def straightened(lines: list[tuple[str, Box]]) -> list[Place]:
    """Each line's extent after turning the page so that its long lines run level."""
    if not lines:
        return []
    runs = np.array([box[1] - box[0] for _, box in lines])
    long = runs[np.linalg.norm(runs, axis=1) >= np.median(np.linalg.norm(runs, axis=1))]
    angle = float(np.median(np.arctan2(long[:, 1], long[:, 0])))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return [_place(text, box @ turn) for text, box in lines]


def _place(text: str, box: Box) -> Place:
    left, right = float(box[[0, 3], 0].mean()), float(box[[1, 2], 0].mean())
    return Place(text, left, right, float(box[[0, 1], 1].mean()), float(box[[2, 3], 1].mean()))


def label_of(text: str) -> str:
    """The field that a label names, "other" for one that we do not read, "" for no label."""
    if text.isupper():  # labels are printed in small letters, names in capitals
        return ""
    parts = {_plain(part) for part in (*text.split("/"), text)}
    likeness, label = max(
        (max(_likeness(part, phrase) for part in parts), label) for phrase, label in PHRASES.items()
    )
    return label if likeness >= LABEL_LIKENESS else ""


def _likeness(text: str, phrase: str) -> float:
    """0..1; also where the phrase only begins the text: `Date of issue i Delivrance`."""
    if len(text) < LABEL_LIKENESS * len(phrase) or (
        len(phrase) < 6 and len(text) > len(phrase) + 1
    ):
        return 0.0
    return SequenceMatcher(None, text[: len(phrase)], phrase, autojunk=False).ratio()


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalpha())


PHRASES = {_plain(phrase): label for label, phrases in LABELS.items() for phrase in phrases}


def value_of(label: Place, values: list[Place]) -> str | None:
    """The nearest line that starts under the label, else the nearest to its right, else None."""
    below = [
        v
        for v in values
        if abs(v.left - label.left) < 2.5 * label.height
        and 0 < v.middle - label.middle < 3.5 * label.height
    ]
    if below:
        return min(below, key=lambda v: v.middle).text.strip()
    beside = [
        v
        for v in values
        if v.left > label.right - label.height and abs(v.middle - label.middle) < label.height / 2
    ]
    return min(beside, key=lambda v: v.left).text.strip() if beside else None


def read_date(text: str) -> str:
    """`12 AUG 1974`, `12 AUG / AOÛ 1974` or `12.08.1974` as 1974-08-12; "" for anything else."""
    text = text.upper().strip()
    if match := DIGITS_DATE.match(text):
        day, month, year = (int(part) for part in match.groups())
    elif match := WORDS_DATE.match(text):
        day, year = int(match[1]), int(match[3])
        month = MONTHS.get(match[2].translate(str.maketrans("0158", "OISB")), 0)
    else:
        return ""
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return ""


def settle_number(zone: VisualZone, mrz: Mrz) -> None:
    """Takes the MRZ's number where print and MRZ differ by look-alikes only (O and 0, I and 1).

    An OCR cannot tell those apart in most fonts; the MRZ's check digit can.
    """
    printed = zone.number.replace(" ", "")
    alike = len(printed) == len(mrz.number) and all(
        a == b or b in LOOK_ALIKES.get(a, "") for a, b in zip(printed, mrz.number, strict=True)
    )
    if alike and mrz.checks["number"]:
        zone.number = mrz.number


def agreement(zone: VisualZone, mrz: Mrz) -> dict[str, bool]:
    """Field by field, whether the two zones say the same; only fields that both zones have.

    This is what stands in for a check digit on names: those lie outside the MRZ's.
    """
    printed = {
        "surname": transliterate(zone.surname).replace("<", " "),
        "given_names": transliterate(zone.given_names).replace("<", " "),
        "number": zone.number.replace(" ", ""),
        "birth_date": zone.birth_date,
        "expiry_date": zone.expiry_date,
    }
    return {name: text == getattr(mrz, name) for name, text in printed.items() if text}
