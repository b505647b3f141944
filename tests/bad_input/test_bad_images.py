"""B10 to B17: images that are none, are too much, or are unusual and right."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import time
import zipfile
import zlib

import pytest
from PIL import Image as Pillow
from PIL import PngImagePlugin
from wire import HouseUnderTest, check_no_leak, check_problem

RED = (200, 20, 10)


def encoded(image: Pillow.Image, kind: str, **more: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def red(kind: str = "PNG", size: tuple[int, int] = (40, 30), **more: object) -> bytes:
    return encoded(Pillow.new("RGB", size, RED), kind, **more)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *before: bytes, color: bytes = b"\x08\x02") -> bytes:
    """A PNG of one pixel's data that says it is larger."""
    header = struct.pack(">II", width, height) + color + b"\0\0\0"
    pixels = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *before, pixels, chunk(b"IEND", b"")]
    )


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x.class", b"x" * 100)
    return out.getvalue()


def ways(house: HouseUnderTest, image: bytes, media_type: str = "image/png") -> list[object]:
    """As raw bytes, as JSON, in a form."""
    form = b'--b\r\nContent-Disposition: form-data; name="i"\r\n\r\n' + image + b"\r\n--b--"
    return [
        house.call("photo", image, media_type),
        house.call("photo", json.dumps(base64.b64encode(image).decode()).encode()),
        house.call("photo", form, "multipart/form-data; boundary=b"),
    ]


def others() -> dict[str, bytes]:
    image, out = Pillow.new("RGB", (40, 30), RED), {}
    for kind in (
        "GIF",
        "BMP",
        "TIFF",
        "JPEG2000",
        "PCX",
        "TGA",
        "ICNS",
        "PPM",
        "ICO",
        "DDS",
        "SGI",
    ):
        out[kind] = encoded(image.resize((16, 16)) if kind == "ICNS" else image, kind)
    out["EPS"] = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"
    out["PSD"] = b"8BPS\0\x01" + bytes(30)
    out["FITS"] = b"SIMPLE  =                    T" + bytes(2850)
    out["FLI"] = struct.pack("<IH", 128, 0xAF11) + bytes(122)
    out["BLP"] = b"BLP1" + bytes(200)
    out["McIdas"] = b"\0\0\0\0\0\0\0\x04" + bytes(300)
    out["AVIF"] = b"\0\0\0\x20ftypavif" + bytes(40)
    out["SVG"] = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
    out["PDF"] = b"%PDF-1.7\n%%EOF"
    out["HTML"] = b"<html><script>alert(1)</script></html>"
    out["ZIP"] = zipped()
    out["GIFAR"] = encoded(image, "GIF") + zipped()
    out["text"] = b"SECRETMARK"
    out["PNG-after-space"] = b" " + red()
    out["PDF-with-JPEG"] = b"%PDF-1.7\n" + red("JPEG")
    out["RIFF-WAVE"] = b"RIFF\x24\0\0\0WAVEfmt "
    return out


OTHERS = others()


@pytest.mark.parametrize("image", OTHERS.values(), ids=OTHERS.keys())
def test_b10_b14_other_types(house: HouseUnderTest, image: bytes) -> None:
    for answer in ways(house, image):
        check_problem(answer, 415, "image-type-not-allowed")


@pytest.mark.parametrize("kind", ["image/svg+xml", "image/gif", "image/tiff", "image/*", "image/x"])
def test_b10_declared_other(house: HouseUnderTest, kind: str) -> None:
    check_problem(house.call("photo", red(), kind), 415, "image-type-not-allowed")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_b10_polyglots_are_read_as_the_image_they_are(house: HouseUnderTest, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    for tail in (zipped(), b"<script>", bytes(1000), b"\xff\xd8\xff"):
        for answer in ways(house, red(kind, **options) + tail):
            assert answer.status == 200, answer
            assert answer.json()["result"]["width"] == 40
            check_no_leak(answer)


def broken() -> dict[str, bytes]:
    jpeg, whole, webp = red("JPEG", (400, 300)), red(size=(400, 300)), red("WEBP")
    at = whole.index(b"IDAT")
    return {
        "jpeg-half": jpeg[: len(jpeg) // 2],
        "jpeg-magic": jpeg[:3],
        "jpeg-no-frame": b"\xff\xd8\xff\xd9",
        "jpeg-scan-without-frame": b"\xff\xd8\xff\xda\x00\x08" + bytes(100),
        "jpeg-fill": b"\xff\xd8" + b"\xff" * 1_200_000,
        "jpeg-segment-of-0": b"\xff\xd8\xff\xe0\x00\x00" + bytes(100),
        "jpeg-two-frames": jpeg[:2] + _frame(10, 10) + jpeg[2:],
        "png-magic": whole[:8],
        "png-half": whole[: at + 20],
        "png-bad-crc": whole[: at + 8] + b"\xff\x00" + whole[at + 10 :],
        "png-no-header": whole[:8] + whole[33:],
        "png-two-headers": whole[:33] + whole[8:33] + whole[33:],
        "png-zero-width": png(0, 10),
        "png-zero-height": png(10, 0),
        "png-chunk-past-the-end": whole[:33] + b"\xff\xff\xff\xfftEXt",
        "webp-magic": webp[:12],
        "webp-half": webp[: len(webp) // 2],
        "webp-unknown": webp[:12] + b"VP8Z" + webp[16:],
        "webp-bad-start-code": webp[:23] + b"xxx" + webp[26:],
    }


def _frame(width: int, height: int) -> bytes:
    return b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03\x01\x22\0\x02\x11\x01\x03\x11\x01"  # fmt: skip  # noqa: E501


BROKEN = broken()


@pytest.mark.parametrize("image", BROKEN.values(), ids=BROKEN.keys())
def test_b11_broken(house: HouseUnderTest, image: bytes) -> None:
    for answer in ways(house, image):
        check_problem(answer, 422, "image-undecodable")


def test_b11_empty(house: HouseUnderTest) -> None:
    raw, text, form = ways(house, b"")
    check_problem(raw, 400, "empty-body")
    check_problem(text, 422, "image-undecodable")
    check_problem(form, 400, "empty-body")


def test_b11_one_broken_of_two(house: HouseUnderTest) -> None:
    good, bad = (base64.b64encode(i).decode() for i in (red(), BROKEN["png-magic"]))
    answer = house.call("pair", json.dumps({"first": good, "second": bad}).encode())
    check_problem(answer, 422, "image-undecodable")
    assert answer.json()["errors"][0]["pointer"] == "/second"


def pixel_bombs() -> dict[str, bytes]:
    return {
        "png-50k": png(50_000, 50_000),
        "png-1x2^31": png(1, 1 << 31),
        "png-2^32-1": png((1 << 32) - 1, (1 << 32) - 1),
        "png-just-over": png(8000, 5001),
        "png-too-wide": png(20_001, 1),
        "jpeg-65k": b"\xff\xd8" + _frame(65_535, 65_535) + b"\xff\xda\x00\x08" + bytes(50),
        "webp-lossy": b"RIFF\x50\0\0\0WEBPVP8 \x40\0\0\0\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f"
        + bytes(60),
        "webp-lossless": b"RIFF\x50\0\0\0WEBPVP8L\x40\0\0\0\x2f\xff\xff\xff\x0f" + bytes(60),
        "webp-extended": b"RIFF\x50\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6 + bytes(60),
    }  # fmt: skip


PIXEL_BOMBS = pixel_bombs()


@pytest.mark.parametrize("image", PIXEL_BOMBS.values(), ids=PIXEL_BOMBS.keys())
def test_b12_pixel_bombs(house: HouseUnderTest, image: bytes) -> None:
    for answer in ways(house, image):
        check_problem(answer, 422, "image-too-many-pixels")


def test_b12_the_limit_is_in(house: HouseUnderTest) -> None:
    check_problem(house.call("photo", png(8000, 5000), "image/png"), 422, "image-undecodable")
    check_problem(house.call("photo", png(20_000, 2), "image/png"), 422, "image-undecodable")


def animation(kind: str, frames: int) -> bytes:
    images = [Pillow.new("RGB", (8, 8), (n % 256, n // 256, 0)) for n in range(frames)]
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(images[0], kind, save_all=True, append_images=images[1:], duration=1, **options)


def complex_images() -> dict[str, bytes]:
    packed = zlib.compress(bytes(60_000_000), 9)
    progressive = red("JPEG", (64, 64), progressive=True)
    start = progressive.index(b"\xff\xda")
    cut = zlib.compress(bytes(3_900_000), 9)[:-9] + b"x" * 9
    return {
        "apng-frames": animation("PNG", 65),
        "apng-says-10k": png(1, 1, chunk(b"acTL", struct.pack(">II", 10_000, 0))),
        "webp-frames": animation("WEBP", 65),
        "zTXt": png(1, 1, chunk(b"zTXt", b"a\0\0" + packed)),
        "iCCP": png(1, 1, chunk(b"iCCP", b"a\0\0" + packed)),
        "iTXt": png(1, 1, chunk(b"iTXt", b"a\0\x01\0\0\0" + packed)),
        "many-zTXt": png(1, 1, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(500_000)))] * 100),
        "broken-at-the-end": png(1, 1, *[chunk(b"zTXt", b"a\0\0" + cut)] * 90),
        "chunk-flood": png(1, 1, *[chunk(b"tEXt", b"")] * 100_000),
        "segment-flood": b"\xff\xd8" + b"\xff\xfe\x00\x02" * 400_000,
        "marker-flood": b"\xff\xd8" + b"\xff\xd0" * 900_000,
        "scan-flood": progressive[:start] + progressive[start : start + 12] * 5000 + b"\xff\xd9",
    }  # fmt: skip


COMPLEX = complex_images()


@pytest.mark.parametrize("image", COMPLEX.values(), ids=COMPLEX.keys())
def test_b13_complex(house: HouseUnderTest, image: bytes) -> None:
    began = time.monotonic()
    check_problem(house.call("photo", image, "image/png"), 422, "image-too-complex")
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("frames", [63, 64])
def test_b13_up_to_64_frames(house: HouseUnderTest, kind: str, frames: int) -> None:
    answer = house.call("photo", animation(kind, frames), "image/png")
    assert answer.json()["result"]["corner"] == [0, 0, 0]


def test_b12_b13_two_hundred_bombs_are_cheap(house: HouseUnderTest) -> None:
    bombs = [*PIXEL_BOMBS.values(), *COMPLEX.values()]
    house.call("photo", bombs[0], "image/png")
    before, slowest = house.resident_mb(), 0.0
    for number in range(200):
        began = time.monotonic()
        assert house.call("photo", bombs[number % len(bombs)], "image/png").status == 422
        slowest = max(slowest, time.monotonic() - began)
    assert house.resident_mb() - before < 20
    assert slowest < 0.5  # 0.03 s on a quiet machine


def test_b13_text_bomb_behind_the_pixels(house: HouseUnderTest) -> None:
    whole = red()
    end = whole.index(b"IEND") - 4
    packed = zlib.compress(bytes(60_000_000), 9)
    image = whole[:end] + chunk(b"zTXt", b"a\0\0" + packed) + whole[end:]
    answer = house.call("photo", image, "image/png")
    assert answer.status in (200, 422)
    check_no_leak(answer)


# -- B15: the corner that is red says how the image was turned -----------------------------------


def turned(orientation: int, kind: str) -> bytes:
    """Upright: 32 wide, 16 high, red at the top left. Stored so that EXIF turns it upright."""
    upright = Pillow.new("RGB", (32, 16))
    upright.paste(RED, (0, 0, 8, 8))
    t = Pillow.Transpose
    stored = {
        1: None, 2: t.FLIP_LEFT_RIGHT, 3: t.ROTATE_180, 4: t.FLIP_TOP_BOTTOM, 5: t.TRANSPOSE,
        6: t.ROTATE_90, 7: t.TRANSVERSE, 8: t.ROTATE_270,
    }[orientation]  # fmt: skip
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8825)[1] = "N"
    image = upright if stored is None else upright.transpose(stored)
    return encoded(image, kind, exif=exif, quality=95)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_b15_orientation(house: HouseUnderTest, orientation: int, kind: str) -> None:
    seen = house.call("photo", turned(orientation, kind), "image/jpeg").json()["result"]
    assert (seen["width"], seen["height"]) == (32, 16)
    assert seen["corner"] == pytest.approx(RED, abs=16)


def exifs() -> dict[str, bytes]:
    head = b"Exif\0\0II*\0\x08\0\0\0"
    loop = head + struct.pack("<HHHIII", 1, 0x0112, 3, 1, 9, 8)  # its next directory is itself
    sub = head + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 0)  # its sub-directory is itself
    return {
        "ifd-loop": loop,
        "sub-ifd-loop": sub,
        "orientation-9": head + struct.pack("<HHHIII", 1, 0x0112, 3, 1, 9, 0),
        "orientation-text": head + struct.pack("<HHHI4sI", 1, 0x0112, 2, 4, b"abc\0", 0),
        "orientation-far-away": head + struct.pack("<HHHIII", 1, 0x0112, 3, 1 << 30, 1 << 30, 0),
        "garbage": b"Exif\0\0" + random.Random(1).randbytes(1000),
        "only-head": b"Exif\0\0",
        "64k-thumbnail": b"Exif\0\0II*\0\x08\0\0\0" + bytes(65_000),
        "65k-entries": head + b"\xff\xff" + bytes(60_000),
        "xmp-with-script": b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><script>alert(1)</script>",
    }


EXIFS = exifs()


@pytest.mark.parametrize("exif", EXIFS.values(), ids=EXIFS.keys())
def test_b15_exif_that_is_wrong_is_left_alone(house: HouseUnderTest, exif: bytes) -> None:
    jpeg = red("JPEG")
    image = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    answer = house.call("photo", image, "image/jpeg")
    assert answer.status == 200, answer
    seen = answer.json()["result"]
    assert (seen["width"], seen["height"]) == (40, 30)
    check_no_leak(answer)


# -- B16 -----------------------------------------------------------------------------------------


def modes() -> dict[str, tuple[bytes, tuple[int, int, int]]]:
    size = (16, 16)
    half = Pillow.new("RGBA", size, (200, 100, 50, 128))
    palette = Pillow.new("P", size, 1)
    palette.putpalette([0, 0, 0, *RED])
    clear = Pillow.new("P", size, 1)
    clear.putpalette([0, 0, 0, *RED])
    rgb16 = b"\0" + struct.pack(">HHH", 0xC800, 0x6400, 0x3200)
    deep = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    deep += chunk(b"IDAT", zlib.compress(rgb16)) + chunk(b"IEND", b"")
    return {
        "16-bit-grey": (encoded(Pillow.new("I;16", size, 0xC812), "PNG"), (200, 200, 200)),
        "16-bit-rgb": (deep, (200, 100, 50)),
        "grey": (encoded(Pillow.new("L", size, 77), "PNG"), (77, 77, 77)),
        "grey-jpeg": (encoded(Pillow.new("L", size, 77), "JPEG"), (77, 77, 77)),
        "1-bit": (encoded(Pillow.new("1", size, 1), "PNG"), (255, 255, 255)),
        "alpha-over-black": (encoded(half, "PNG"), (100, 50, 25)),
        "alpha-webp": (encoded(half, "WEBP", lossless=True), (100, 50, 25)),
        "grey-alpha": (encoded(Pillow.new("LA", size, (200, 128)), "PNG"), (100, 100, 100)),
        "palette": (encoded(palette, "PNG"), RED),
        "palette-alpha": (encoded(clear, "PNG", transparency=bytes([255, 0])), (0, 0, 0)),
        "rgb-with-a-clear-colour": (
            encoded(Pillow.new("RGB", size, RED), "PNG", transparency=RED), (0, 0, 0)),
        "cmyk": (encoded(Pillow.new("CMYK", size, (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
        "progressive": (encoded(Pillow.new("RGB", size, RED), "JPEG", progressive=True), RED),
        "icc": (encoded(Pillow.new("RGB", size, RED), "PNG", icc_profile=bytes(500)), RED),
        "text": (encoded(Pillow.new("RGB", size, RED), "PNG", pnginfo=_text()), RED),
        "animated-first-frame": (animation("PNG", 3), (0, 0, 0)),
    }  # fmt: skip


def _text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b" * 1000, zip=True)
    info.add_itxt("c", "d" * 1000, zip=True)
    return info


MODES = modes()


@pytest.mark.parametrize(("image", "corner"), MODES.values(), ids=MODES.keys())
def test_b16_modes(house: HouseUnderTest, image: bytes, corner: tuple[int, int, int]) -> None:
    answer = house.call("photo", image, "image/png")
    assert answer.status == 200, answer
    assert answer.json()["result"]["corner"] == pytest.approx(corner, abs=3)


@pytest.mark.parametrize("size", [(1, 1), (8, 8)])
def test_b17_too_small_is_for_the_model_to_say(
    house: HouseUnderTest, size: tuple[int, int]
) -> None:
    answer = house.call("photo", encoded(Pillow.new("RGB", size), "PNG"), "image/png")
    assert answer.json()["result"]["face"] == "no_face"


def test_mutated_images(house: HouseUnderTest) -> None:
    """What `inspect` lets through is decoded or refused, and costs no model process its life."""
    seeds = [
        red("JPEG"), red(), red("WEBP"), animation("PNG", 3), animation("WEBP", 3),
        red("JPEG", progressive=True), turned(6, "JPEG"), MODES["palette-alpha"][0],
    ]  # fmt: skip
    random_ = random.Random(7)
    before = house.metric("headrace_answers_total")
    for number in range(300):
        image = bytearray(seeds[number % len(seeds)])
        for _ in range(random_.randint(1, 6)):
            image[random_.randrange(len(image))] = random_.randrange(256)
        if number % 5 == 0:
            del image[random_.randrange(len(image)) :]
        answer = house.call("photo", bytes(image), "image/png")
        assert answer.status in (200, 400, 415, 422), answer
        check_no_leak(answer)
    assert house.metric("headrace_answers_total") > before
