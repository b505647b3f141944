"""From lines that an OCR read to a machine readable zone: find it, clean it, fit it, mend it.

    text lines -> those that look like MRZ -> exact width -> kind by place -> check digits

Mending is bounded. A place that can hold only digits (or only letters) takes the look-alike of its
kind. A free place changes only when its check digit fails, and only to a reading that passes and
that the OCR held clearly likelier than all others that pass. Each change is in `Mrz.repaired`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import combinations, product

from .mrz import FILLER, LAYOUTS, Check, Format, Layout, Mrz, parse, passes

AS_FILLER = {"«": "<<", "\u2039": "<", "\uff1c": "<", "《": "<<", "〈": "<", "≤": "<", " ": ""}
TO_DIGIT = dict(zip("OQDUILJZSBGAT", "0000111258647", strict=True))
TO_LETTER = dict(zip("0125867", "OIZSBGT", strict=True))
LOOK_ALIKES = {"0": "OQD", "O": "0", "Q": "0", "D": "0", "1": "I", "I": "1", "2": "Z", "Z": "2",
               "5": "S", "S": "5", "8": "B", "B": "8"}  # fmt: skip
# not L/1 and G/6: ten values apart, they have the same check digit, so it cannot tell them apart

SWAP_NATS = (
    10.0  # how much less likely a look-alike is than what was read, where the OCR did not say
)
CLEAR_NATS = 2.0  # the best passing reading must be this much (7 times) likelier than the next
MAX_SWAPS = 2  # per check digit: with more, some reading fits any digit
MAX_MISSING = 4  # characters that a line may be short or long of its width


@dataclass(frozen=True)
class Text:
    """A line as read. `costs[n]`: how much less likely (nats) each look-alike of letter n is."""

    letters: str
    costs: Sequence[Mapping[str, float]] = field(default_factory=list)

    def cost(self, place: int, letter: str) -> float:
        return self.costs[place].get(letter, SWAP_NATS) if self.costs else SWAP_NATS

    def pick(self, places: Sequence[int], letters: str) -> Text:
        return Text(letters, [self.costs[n] for n in places] if self.costs else [])


def read_mrz(texts: Sequence[Text], today: date | None = None) -> Mrz | None:
    """The zone in the text lines of a page (from top to bottom), or None if there is none."""
    best: Mrz | None = None
    for kind, rows in _zones([clean(text) for text in texts]):
        found = _mended(kind, rows, today)
        if best is None or sum(found.checks.values()) > sum(best.checks.values()):
            best = found
        if best.valid:
            break
    return best if best and any(best.checks.values()) else None


def clean(text: Text) -> Text:
    """Upper case, without blanks, quotation marks back to the fillers that they were."""
    places, letters = [], ""
    for n, letter in enumerate(text.letters):
        written = AS_FILLER.get(letter, letter.upper())
        places += [n] * len(written)
        letters += written
    return text.pick(places, letters)


def looks_like_mrz(text: str) -> bool:
    """Whether a cleaned line may be of a zone: long, of its alphabet, a filler or many digits."""
    allowed = all(c == FILLER or (c.isascii() and c.isalnum()) for c in text)
    marked = FILLER in text or sum(c.isdigit() for c in text) > 6
    return allowed and marked and len(text) >= 30 - MAX_MISSING


def _zones(texts: list[Text]) -> Iterator[tuple[Format, list[Text]]]:
    """Runs of neighbouring lines that fit a format, from the bottom of the page upwards."""
    lines = [text for text in texts if looks_like_mrz(text.letters)]
    for kind, layout in reversed(LAYOUTS.items()):
        for end in range(len(lines), layout.rows - 1, -1):
            rows = [fit(line, layout.columns) for line in lines[end - layout.rows : end]]
            fitting = [row for row in rows if row is not None]
            if len(fitting) == layout.rows:
                yield kind, fitting


def fit(text: Text, width: int) -> Text | None:
    """The line with its longest run of fillers made longer or shorter, as OCR miscounts those."""
    line, missing = text.letters, width - len(text.letters)
    if missing == 0:
        return text
    runs = "".join(c if c == FILLER else " " for c in line).split()
    longest = max(runs, key=len, default="")
    if abs(missing) > MAX_MISSING or len(longest) < 3 or len(longest) + missing < 1:
        return None
    end = line.rindex(longest) + len(longest)
    places = [*range(end + min(missing, 0)), *[end - 1] * missing, *range(end, len(line))]
    return text.pick(places, "".join(line[n] for n in places))


def _mended(kind: Format, rows: list[Text], today: date | None) -> Mrz:
    layout = LAYOUTS[kind]
    costs = [c for row in rows for c in row.costs]
    read = Text("".join(row.letters for row in rows), costs)
    zone = _by_kind(read.letters, layout)
    for check in layout.checks:
        zone = _by_check(zone, read, check, layout)
    mrz = parse([zone[n : n + layout.columns] for n in range(0, len(zone), layout.columns)], today)
    mrz.repaired = [
        f"{_name_of(n, layout)}: {old} -> {new}"
        for n, (old, new) in enumerate(zip(read.letters, zone, strict=True))
        if old != new
    ]
    return mrz


def _by_kind(zone: str, layout: Layout) -> str:
    """Each place gets the look-alike of its kind: O becomes 0 in a date, 0 becomes O in a name."""
    tables = {"digits": TO_DIGIT, "letters": TO_LETTER}
    letters = list(zone)
    for f in layout.fields:
        table = tables.get(f.kind, {})
        letters[f.start : f.end] = [table.get(c, c) for c in letters[f.start : f.end]]
    for check in layout.checks:
        letters[check.place] = TO_DIGIT.get(letters[check.place], letters[check.place])
    return "".join(letters)


def _by_check(zone: str, read: Text, check: Check, layout: Layout) -> str:
    """If the check fails: the clearly likeliest reading, look-alikes swapped, that passes."""
    if passes(check, zone):
        return zone
    passing = sorted(
        (cost, swapped)
        for cost, swapped in _swaps(zone, read, _free_places(zone, check, layout))
        if passes(check, swapped)
    )
    if not passing or (len(passing) > 1 and passing[1][0] - passing[0][0] < CLEAR_NATS):
        return zone
    return passing[0][1]


def _free_places(zone: str, check: Check, layout: Layout) -> list[int]:
    """The places of letters or digits under this check that have no check of their own."""
    owned = {c.name for c in layout.checks} - {check.name}
    return [
        n
        for f in layout.fields
        if f.kind == "any" and f.name not in owned
        for n in range(f.start, f.end)
        if zone[n] in LOOK_ALIKES and any(start <= n < end for start, end in check.spans)
    ]


def _swaps(zone: str, read: Text, places: list[int]) -> Iterator[tuple[float, str]]:
    """Every reading with one or two look-alikes swapped, and how much less likely it is in nats."""
    for count in range(1, MAX_SWAPS + 1):
        for chosen in combinations(places, count):
            for letters in product(*(LOOK_ALIKES[zone[n]] for n in chosen)):
                swapped = list(zone)
                for n, letter in zip(chosen, letters, strict=True):
                    swapped[n] = letter
                cost = sum(read.cost(n, c) for n, c in zip(chosen, letters, strict=True))
                yield cost, "".join(swapped)


def _name_of(place: int, layout: Layout) -> str:
    return next((f.name for f in layout.fields if f.start <= place < f.end), "check digit")
