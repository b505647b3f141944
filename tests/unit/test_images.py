"""Image headers, read by hand: right for right images, a refusal for everything else."""

from __future__ import annotations

import io
import random
import struct
import time
import warnings

import pytest
from PIL import Image as Pillow

from headrace import images
from headrace.errors import Invalid, Refusal, UnsupportedMediaType
from headrace.images import MAX_PIXELS, MAX_SIDE, Image, ImageFacts, inspect


def encoded(size: tuple[int, int], kind: str, mode: str = "RGB", **more: object) -> bytes:
    out = io.BytesIO()
    Pillow.new(mode, size, 100 if mode in ("L", "P", "1") else None).save(out, kind, **more)
    return out.getvalue()


SIZES = [(1, 1), (2, 3), (255, 256), (1000, 17)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kind", "more"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"optimize": True}), ("PNG", {}),
     ("PNG", {"optimize": True}), ("WEBP", {}), ("WEBP", {"lossless": True}),
     ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}), ("JPEG", {"comment": b"x" * 9999}),
     ("PNG", {"icc_profile": bytes(2000)}), ("JPEG", {"icc_profile": bytes(100_000)})],
)  # fmt: skip
def test_sizes(size: tuple[int, int], kind: str, more: dict[str, object]) -> None:
    data = encoded(size, kind, **more)
    assert inspect(data) == ImageFacts(kind, *size)
    image = Image(data)
    assert (image.format, image.width, image.height) == (kind, *size)
    assert image.array().shape == (size[1], size[0], 3)
    assert image.array() is image.array()
    assert "bytes" in repr(image)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_modes(mode: str) -> None:
    assert Image(encoded((5, 4), "PNG", mode)).array().shape == (4, 5, 3)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "1"])
def test_jpeg_modes(mode: str) -> None:
    assert Image(encoded((5, 4), "JPEG", mode)).array().shape == (4, 5, 3)


def test_16_bits_keep_their_scale() -> None:
    out = io.BytesIO()
    image = Pillow.new("I;16", (3, 1))
    for at, value in enumerate((0, 0x8000, 0xFFFF)):
        image.putpixel((at, 0), value)
    image.save(out, "PNG")
    assert Image(out.getvalue()).array()[0, :, 0].tolist() == [0, 128, 255]


def test_multi_picture_jpeg_gives_its_first() -> None:
    out = io.BytesIO()
    first, second = Pillow.new("RGB", (8, 8), (200, 0, 0)), Pillow.new("RGB", (90, 90))
    first.save(out, "MPO", save_all=True, append_images=[second])
    assert Image(out.getvalue()).array()[0, 0].tolist() == pytest.approx([200, 0, 0], abs=3)


def frames(kind: str, count: int) -> bytes:
    out = io.BytesIO()
    shots = [Pillow.new("RGB", (4, 4), (n, n, 7)) for n in range(count)]
    shots[0].save(out, kind, save_all=True, append_images=shots[1:], lossless=True)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_frames(kind: str) -> None:
    assert inspect(frames(kind, 3)).frames == 3
    assert Image(frames(kind, 3)).array()[0, 0].tolist() == [0, 0, 7]
    assert inspect(frames(kind, 64)).frames == 64
    with pytest.raises(Invalid) as caught:
        inspect(frames(kind, 65), "/x")
    assert caught.value.code == "image-too-complex"
    assert caught.value.errors[0].pointer == "/x"


def png_of(width: int, height: int) -> bytes:
    head = struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + bytes(4)
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I4s", 0, b"IDAT")


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(8000, 4999, 1), (8000, 5000, 1), (8000, 5001, 0), (MAX_SIDE - 1, 1, 1), (MAX_SIDE, 1, 1),
     (MAX_SIDE + 1, 1, 0), (1, MAX_SIDE + 1, 0), (MAX_PIXELS, 1, 0), (1, 1 << 31, 0)],
)  # fmt: skip
def test_pixels(width: int, height: int, fits: int) -> None:
    if fits:
        assert inspect(png_of(width, height))[:3] == ("PNG", width, height)
    else:
        with pytest.raises(Invalid) as caught:
            inspect(png_of(width, height))
        assert caught.value.code == "image-too-many-pixels"


def test_a_second_size_is_not_believed() -> None:
    """A small frame header before the real one: our eyes and the decoder's must agree."""
    jpeg = encoded((300, 300), "JPEG")
    small = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 9, 9) + b"\3\1\x22\0\2\x11\1\3\x11\1"
    with pytest.raises(Invalid):
        inspect(jpeg[:2] + small + jpeg[2:])
    image = Image(encoded((30, 30), "PNG"))
    image.facts = image.facts._replace(width=3)
    with pytest.raises(Invalid) as caught:
        image.array()
    assert caught.value.code == "image-undecodable"


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"GIF89a", b"RIFF", b"\x89PNG", b"BM"])
def test_not_an_image(data: bytes) -> None:
    with pytest.raises((UnsupportedMediaType, Invalid)):
        inspect(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_cut_anywhere(kind: str) -> None:
    whole = encoded((20, 20), kind)
    for size in range(len(whole)):
        try:
            Image(whole[:size]).array()
        except Refusal as refusal:
            assert refusal.status in (415, 422)  # noqa: PT017


FLOODS = {
    "jpeg-fill": b"\xff\xd8" + b"\xff" * 20_000_000,
    "jpeg-restarts": b"\xff\xd8" + b"\xff\xd0" * 10_000_000,
    "jpeg-comments": b"\xff\xd8" + b"\xff\xfe\0\2" * 5_000_000,
    "png-chunks": png_of(1, 1)[:-8] + bytes(12) * 1_600_000,
    "webp-frames": b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\2" + b"ANMF" * 5_000_000,
}


@pytest.mark.parametrize("data", FLOODS.values(), ids=FLOODS.keys())
def test_floods_are_cheap(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(Refusal):
        inspect(data)
    assert time.process_time() - began < 0.2


_TURNED = struct.pack("<HHHIII", 1, 0x0112, 3, 1, 6, 0)


def seeds() -> list[bytes]:
    return [
        encoded((20, 20), "JPEG"), encoded((20, 20), "JPEG", progressive=True),
        encoded((20, 20), "JPEG", "CMYK"), encoded((20, 20), "PNG"),
        encoded((20, 20), "PNG", "P"), encoded((20, 20), "PNG", "I;16"), frames("PNG", 3),
        encoded((20, 20), "WEBP"), encoded((20, 20), "WEBP", lossless=True), frames("WEBP", 3),
        encoded((20, 20), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0" + _TURNED),
    ]  # fmt: skip


PIECES = [b"\xff", b"\0" * 4, b"\xff" * 4, b"IDAT", b"\xff\xda", b"\xff\xc0", b"ANMF"]


def test_mutations() -> None:
    """`inspect` raises refusals alone, and quickly; what it lets in decodes or is refused, in the
    size that it said."""
    random_ = random.Random(20)
    accepted = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about odd metadata
        for number in range(4000):
            data = bytearray(random_.choice(seeds_))
            for _ in range(random_.randint(1, 8)):
                at, way = random_.randrange(max(1, len(data))), random_.random()
                if way < 0.6 and data:
                    # The headers are where the parsers look.
                    data[at if number % 2 else at % 64 % len(data)] = random_.randrange(256)
                elif way < 0.8:
                    del data[at : at + random_.randint(1, 30)]
                else:
                    data[at:at] = random_.choice([*PIECES, data[:40]])
            began = time.process_time()
            try:
                image = Image(bytes(data))
                assert time.process_time() - began < 0.1
                pixels = image.width * image.height
                assert image.array().size == 3 * pixels <= 3 * MAX_PIXELS
                accepted += 1
            except Refusal as refusal:
                assert refusal.status in (415, 422)  # noqa: PT017
    assert accepted > 100


seeds_ = seeds()


def test_no_decoder_is_loaded_to_inspect() -> None:
    """The gateway has no Pillow."""
    import subprocess
    import sys

    code = (
        "import sys; from headrace.images import inspect; "
        f"inspect({encoded((2, 2), 'PNG')!r}); "
        "assert not {'PIL', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert images.MEDIA_TYPES
