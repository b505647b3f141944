"""Renders the specimens: invented people of Utopia (UTO, ICAO's code for samples), and their truth.

    PEOPLE -> page or card -> wear (turn, blur, noise, light) -> <name>.jpg, and truth.json for all

Needs Pillow, NumPy, and the fonts of Debian's fonts-ocr-b and fonts-dejavu-core. Same seed, same
files. The results are committed, so only who changes a specimen runs it:

    python examples/ekyc/specimens/render.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from ekyc.mrz import check_digit, transliterate  # noqa: E402  (the example is no installed package)

FONTS = Path("/usr/share/fonts")
OCR_B = FONTS / "opentype/ocr-b/OCRB.otf"
SANS, BOLD = (FONTS / f"truetype/dejavu/DejaVuSans{kind}.ttf" for kind in ("", "-Bold"))
PX_PER_MM = 10
MRZ_PITCH_MM = 2.54  # ICAO 9303-3: ten characters an inch
MRZ_LINE_MM = 4.23 + 2.2
MAX_BYTES = 150_000
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
INK, LABEL, RED = (24, 26, 34), (70, 84, 104), (150, 20, 40)


@dataclass(frozen=True)
class Holder:
    """What stands on the document; names as printed, with their accents."""

    surname: str
    given_names: str
    number: str
    birth: date
    sex: str
    issued: date
    expires: date
    place: str
    personal_number: str = ""
    nationality: str = "UTO"


@dataclass(frozen=True)
class Specimen:
    name: str
    kind: str  # TD1, TD2 or TD3
    holder: Holder
    wear: tuple[Callable[[Image.Image, np.random.Generator], Image.Image], ...] = ()
    quality: int = 82
    day_style: str = "words"  # 12 AUG 1974, or digits: 12.08.1974


def main() -> None:
    truth = {}
    for seed, specimen in enumerate(specimens()):
        draw = draw_card if specimen.kind == "TD1" else draw_page
        picture = draw(specimen)
        rng = np.random.default_rng(seed)
        for wear in specimen.wear:
            picture = wear(picture, rng)
        path = HERE / f"{specimen.name}.jpg"
        picture.save(path, quality=specimen.quality, optimize=True)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SystemExit(f"{path.name} has {size} bytes: lower its quality")
        truth[path.name] = true_fields(specimen)
        print(f"{path.name}: {picture.width} x {picture.height} px, {size / 1000:.0f} KB")
    (HERE / "truth.json").write_text(json.dumps(truth, indent=1, ensure_ascii=False) + "\n")


# -- what it says


def mrz_lines(specimen: Specimen) -> list[str]:
    """The machine readable zone, ICAO 9303-4 (TD3), -5 (TD1), -6 (TD2)."""
    h = specimen.holder
    number, birth, expiry = filled(h.number, 9), f"{h.birth:%y%m%d}", f"{h.expires:%y%m%d}"
    number, birth, expiry = (part + check_digit(part) for part in (number, birth, expiry))
    names = transliterate(h.surname) + "<<" + transliterate(h.given_names)
    if specimen.kind == "TD1":
        first = "I<UTO" + number + filled(h.personal_number, 15)
        total = check_digit(first[5:30] + birth + expiry)
        return [first, birth + h.sex + expiry + h.nationality + "<" * 11 + total, filled(names, 30)]
    if specimen.kind == "TD2":
        optional = filled(h.personal_number, 7)
        total = check_digit(number + birth + expiry + optional)
        second = number + h.nationality + birth + h.sex + expiry + optional + total
        return [filled("I<UTO" + names, 36), second]
    personal = filled(h.personal_number, 14)
    personal += check_digit(personal) if h.personal_number else "<"
    total = check_digit(number + birth + expiry + personal)
    second = number + h.nationality + birth + h.sex + expiry + personal + total
    return [filled("P<UTO" + names, 44), second]


def filled(text: str, width: int) -> str:
    assert len(text) <= width, text
    return text.ljust(width, "<")


def true_fields(specimen: Specimen) -> dict[str, object]:
    """What reading the specimen must give, under the names that the API uses."""
    h = specimen.holder
    return {
        "mrz": {
            "format": specimen.kind,
            "document_code": "P" if specimen.kind == "TD3" else "I",
            "state": "UTO",
            "surname": transliterate(h.surname).replace("<", " "),
            "given_names": transliterate(h.given_names).replace("<", " "),
            "number": h.number,
            "nationality": h.nationality,
            "birth_date": h.birth.isoformat(),
            "sex": h.sex,
            "expiry_date": h.expires.isoformat(),
            "personal_number": h.personal_number,
        },
        "visual": {
            "surname": h.surname,
            "given_names": h.given_names,
            "number": h.number,
            "birth_date": h.birth.isoformat(),
            "issue_date": h.issued.isoformat(),
            "expiry_date": h.expires.isoformat(),
        },
        "lines": mrz_lines(specimen),
    }


# -- how it looks


def draw_page(specimen: Specimen) -> Image.Image:
    """A passport's data page (125 x 88 mm) or a TD2 card (105 x 74 mm), MRZ at its foot."""
    td3 = specimen.kind == "TD3"
    page = Sheet(125, 88, (236, 240, 232)) if td3 else Sheet(105, 74, (232, 236, 244))
    title = "PASSPORT / PASSEPORT" if td3 else "IDENTITY CARD / CARTE D'IDENTITÉ"
    page.text(5, 3.2, "UTOPIA", BOLD, 5.0, ink=RED)
    page.text(34, 4.2, title, SANS, 3.4, ink=RED)
    page.portrait(5, 14, 33 if td3 else 26, 42 if td3 else 33)
    visual_zone(page, specimen, left=43 if td3 else 35, top=12, step=8.2 if td3 else 7.2)
    lines = mrz_lines(specimen)
    page.mrz(lines, top=page.height_mm - 4.2 - MRZ_LINE_MM * len(lines))
    return page.image


def draw_card(specimen: Specimen) -> Image.Image:
    """A TD1 card (85.6 x 54 mm), both sides copied on one sheet: the MRZ stands on the back."""
    front, back = Sheet(85.6, 54, (240, 236, 228)), Sheet(85.6, 54, (240, 236, 228))
    front.text(4, 2.4, "UTOPIA", BOLD, 4.2, ink=RED)
    front.text(27, 3.2, "IDENTITY CARD", SANS, 2.8, ink=RED)
    front.portrait(4, 11, 24, 31)
    visual_zone(front, specimen, left=32, top=9.5, step=6.3)
    back.text(4, 4, "Authority / Autorité", SANS, 1.9, ink=LABEL)
    back.text(4, 6.6, "UTOPIA CIVIL REGISTRY", BOLD, 2.6)
    lines = mrz_lines(specimen)
    back.mrz(lines, top=54 - 3.4 - MRZ_LINE_MM * len(lines))
    sheet = Image.new("RGB", (960, 1200), (248, 248, 246))
    sheet.paste(front.image, (52, 36))
    sheet.paste(back.image, (52, 620))
    return sheet


def visual_zone(page: Sheet, specimen: Specimen, left: float, top: float, step: float) -> None:
    """Rows of a small label with its value below; some rows hold two or three."""
    h = specimen.holder
    number_label = "Passport No. / Passeport No" if specimen.kind == "TD3" else "Document No. / No"
    right = left + (page.width_mm - left) * 0.5
    rows: list[list[tuple[float, str, str]]] = [
        [(left, "Surname / Nom", h.surname)],
        [(left, "Given names / Prénoms", h.given_names)],
        [(left, number_label, h.number), (right, "Nationality / Nationalité", "UTOPIAN")],
        [
            (left, "Date of birth / Naissance", day(h.birth, specimen)),
            (right, "Sex / Sexe", h.sex),
            (right + 13, "Place of birth", h.place),
        ],
        [
            (left, "Date of issue / Délivrance", day(h.issued, specimen)),
            (right, "Date of expiry / Expiration", day(h.expires, specimen)),
        ],
    ]
    if h.personal_number:
        rows.append([(left, "Personal No. / No personnel", h.personal_number)])
    for n, row in enumerate(rows):
        for x, label, value in row:
            page.text(x, top + n * step, label, SANS, step * 0.25, ink=LABEL)
            page.text(x, top + n * step + step * 0.33, value, BOLD, step * 0.38)


def day(value: date, specimen: Specimen) -> str:
    if specimen.day_style == "digits":
        return f"{value:%d.%m.%Y}"
    return f"{value.day:02d} {MONTHS[value.month - 1]} {value.year}"


class Sheet:
    """A sheet of security paper, written on in millimetres."""

    def __init__(self, width_mm: float, height_mm: float, paper: tuple[int, int, int]) -> None:
        self.width_mm, self.height_mm = width_mm, height_mm
        self.image = Image.new(
            "RGB", (int(width_mm * PX_PER_MM), int(height_mm * PX_PER_MM)), paper
        )
        self.pen = ImageDraw.Draw(self.image)
        self._waves(tuple(c - 16 for c in paper))

    def _waves(self, ink: tuple[int, ...]) -> None:
        """Guilloche: families of faint waves across the whole sheet, as on security paper."""
        x = np.arange(0, self.image.width + 8, 8)
        for n in range(-20, self.image.height // 28 + 20):
            for speed, shift in ((0.012, 0.3), (0.017, -0.4)):
                y = n * 28 + 26 * np.sin(x * speed + n * shift)
                self.pen.line([*zip(x.tolist(), y.tolist(), strict=True)], fill=ink, width=1)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        font: Path,
        size: float,
        *,
        ink: tuple[int, int, int] = INK,
    ) -> None:
        """Text with its top left corner at (x, y); `size` is the font's size; all in mm."""
        letters = ImageFont.truetype(str(font), round(size * PX_PER_MM))
        self.pen.text((x * PX_PER_MM, y * PX_PER_MM), text, font=letters, fill=ink)

    def mrz(self, lines: list[str], top: float) -> None:
        """OCR-B at its pitch of 2.54 mm, character by character, on a plain band."""
        band = (0, int((top - 2) * PX_PER_MM), self.image.width, self.image.height)
        self.pen.rectangle(band, fill=(246, 247, 245))
        font = ImageFont.truetype(str(OCR_B), round(3.9 * PX_PER_MM))
        left = (self.width_mm - len(lines[0]) * MRZ_PITCH_MM) / 2
        for row, line in enumerate(lines):
            for column, letter in enumerate(line):
                x = (left + column * MRZ_PITCH_MM) * PX_PER_MM
                self.pen.text(
                    (x, (top + row * MRZ_LINE_MM) * PX_PER_MM), letter, font=font, fill=INK
                )

    def portrait(self, x: float, y: float, width: float, height: float) -> None:
        """A drawn bust in place of a photo: a specimen shows nobody."""
        left, top, w, h = (int(v * PX_PER_MM) for v in (x, y, width, height))
        self.pen.rectangle((left, top, left + w, top + h), fill=(206, 214, 220))
        skin, hair, coat = (190, 150, 125), (70, 52, 44), (60, 72, 96)
        cx = left + w // 2
        self.pen.pieslice(
            (left + w // 10, top + int(h * 0.72), left + w - w // 10, top + int(h * 1.28)),
            180,
            360,
            fill=coat,
        )
        self.pen.ellipse((cx - w // 4, top + h // 8, cx + w // 4, top + int(h * 0.55)), fill=hair)
        self.pen.rectangle(
            (cx - w // 11, top + int(h * 0.6), cx + w // 11, top + int(h * 0.76)), fill=skin
        )
        self.pen.ellipse(
            (cx - w // 5, top + int(h * 0.2), cx + w // 5, top + int(h * 0.68)), fill=skin
        )


# -- how it was photographed


def turned(degrees: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    """Laid on a table, not quite straight."""

    def wear(page: Image.Image, rng: np.random.Generator) -> Image.Image:
        table = Image.new("RGB", (page.width + 90, page.height + 110), (112, 96, 82))
        table.paste(page, (45, 55))
        return table.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(112, 96, 82))

    return wear


def tilted(share: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    """Photographed from a little below: the upper edge is shorter than the lower by 2 x `share`."""

    def wear(page: Image.Image, rng: np.random.Generator) -> Image.Image:
        w, h = page.size
        d = w * share
        coefficients = _homography(
            [(d, 0), (w - d, 0), (w, h), (0, h)], [(0, 0), (w, 0), (w, h), (0, h)]
        )
        return page.transform(
            page.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC,
            fillcolor=(112, 96, 82),
        )  # fmt: skip

    return wear


def _homography(seen: list[tuple[float, float]], flat: list[tuple[float, float]]) -> list[float]:
    """Pillow's eight coefficients, from points of the result (`seen`) to points of the source."""
    rows = []
    for (x, y), (u, v) in zip(seen, flat, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    goal = [c for point in flat for c in point]
    solution: list[float] = np.linalg.solve(np.array(rows, float), np.array(goal, float)).tolist()
    return solution


def blurred(radius_px: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    return lambda page, _: page.filter(ImageFilter.GaussianBlur(radius_px))


def noisy(sigma: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    def wear(page: Image.Image, rng: np.random.Generator) -> Image.Image:
        grain = rng.normal(0, sigma, (page.height, page.width, 1))
        return Image.fromarray(np.clip(np.asarray(page) + grain, 0, 255).astype(np.uint8))

    return wear


def dim(light: float, slope: float) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    """Less light, and less of it towards the right edge."""

    def wear(page: Image.Image, rng: np.random.Generator) -> Image.Image:
        grey = ImageEnhance.Contrast(page).enhance(0.8)
        fall = light * (1 - slope * np.linspace(0, 1, page.width))[None, :, None]
        return Image.fromarray((np.asarray(grey) * fall).astype(np.uint8))

    return wear


def scaled(width_px: int) -> Callable[[Image.Image, np.random.Generator], Image.Image]:
    def wear(page: Image.Image, rng: np.random.Generator) -> Image.Image:
        size = (width_px, round(page.height * width_px / page.width))
        return page.resize(size, Image.Resampling.LANCZOS)

    return wear


def specimens() -> list[Specimen]:
    anna = Holder(
        "ERIKSSON", "ANNA MARIA", "L898902C3", date(1974, 8, 12), "F",
        date(2022, 4, 16), date(2032, 4, 15), "ZENITH", "ZE184226B",
    )  # fmt: skip
    jonas = Holder(
        "VAN DER LINDE-KOVAL", "JONAS PETER", "K0B815S2Z", date(1988, 1, 31), "M",
        date(2019, 11, 5), date(2029, 11, 4), "PORT OLBIA",
    )  # fmt: skip
    zoe = Holder(
        "MÜLLER", "ZOË BJÖRK", "X15O08B6", date(2001, 12, 24), "F",
        date(2024, 2, 29), date(2034, 2, 28), "SØRHAVN", "770501B9I",
    )  # fmt: skip
    tariq = Holder(
        "OKONJO", "TARIQ SAMUEL IDRIS", "D23145890", date(1969, 10, 10), "M",
        date(2023, 9, 1), date(2033, 8, 31), "LAKESIDE", "0018Q5S2",
    )  # fmt: skip
    lena = Holder(
        "STRAND", "LENA", "I7B1S5P80", date(1995, 6, 7), "F",
        date(2021, 3, 3), date(2031, 3, 2), "ZENITH", "10B557",
    )  # fmt: skip
    noor = Holder(
        "D'ARCY", "NOOR", "C4408812", date(1979, 2, 3), "F",
        date(2020, 7, 15), date(2030, 7, 14), "EASTGATE", "4471",
    )  # fmt: skip
    return [
        Specimen("td3-clean", "TD3", anna),
        Specimen("td3-turned", "TD3", jonas, (turned(3.0), noisy(3)), 64, "digits"),
        Specimen("td3-blurred", "TD3", zoe, (blurred(1.6), noisy(4)), 55),
        Specimen("td3-dim", "TD3", tariq, (tilted(0.03), dim(0.72, 0.4), noisy(3)), 66, "digits"),
        Specimen("td3-small", "TD3", anna, (scaled(900), turned(-2.0)), 62),
        Specimen("td1-card", "TD1", lena, (noisy(3),), 62, "digits"),
        Specimen("td2-card", "TD2", noor, (turned(-2.5), blurred(1.0), noisy(4)), 62),
    ]


if __name__ == "__main__":
    main()
