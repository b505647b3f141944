"""Images in a signature: checked by their header at the gateway, decoded in the model process.

    bytes -> inspect (type, size, frames: no decoding) -> Image -> array()

JPEG, PNG and WEBP, nothing else: what Pillow would also open is attack surface. The header is read
by hand, because a decoder's own "open" may already decompress (libpng text chunks, WebP canvases).
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.errors import FieldError, Invalid, Refusal, UnsupportedMediaType

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PillowImage

SCHEMA_KEY = "x-headrace-image"
MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")
MAX_PIXELS = 40_000_000  # a 40-megapixel photo is 120 MB decoded
MAX_SIDE = 20_000
MAX_FRAMES = 64
MAX_METADATA = 4_000_000  # bytes of text and profile chunks, inflated
MAX_SEGMENTS = 1_000  # segments or chunks before the pixels: photos have 10 to 300
MAX_SCANS = 100  # of a progressive JPEG: each walks over all pixels; encoders write 10


class ImageFacts(NamedTuple):
    """What the header says: Pillow's format name, width and height in pixels, frames."""

    format: str
    width: int
    height: int
    frames: int = 1


class Image:
    """One image, as the author of a model sees it.

    `array()` gives H x W x 3 uint8 RGB with the EXIF orientation applied; palette, grey, CMYK,
    alpha (over black) and 16-bit images are converted, an animation gives its first frame.
    """

    __slots__ = ("_array", "data", "facts")

    def __init__(self, data: bytes) -> None:
        """Raises Refusal where the header is not one of an allowed image."""
        self.data = data
        self.facts = inspect(data)
        self._array: np.ndarray[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"Image({self.format} {self.width}x{self.height}, {len(self.data)} bytes)"

    @property
    def format(self) -> str:
        return self.facts.format

    @property
    def width(self) -> int:
        """Pixels, before the EXIF orientation is applied."""
        return self.facts.width

    @property
    def height(self) -> int:
        return self.facts.height

    def pil(self) -> PillowImage:
        """A Pillow image in mode RGB, orientation applied. Raises Invalid where undecodable."""
        try:
            return _decode(self.data, self.facts)
        except Exception as error:
            raise Invalid(
                f"the {self.format} image cannot be decoded: {type(error).__name__}",
                code="image-undecodable",
            ) from None

    def array(self) -> np.ndarray[Any, Any]:
        """H x W x 3 uint8 RGB; decoded once. Raises Invalid where undecodable."""
        if self._array is None:
            import numpy as np

            self._array = np.asarray(self.pil())
        return self._array


def _decode(data: bytes, facts: ImageFacts) -> PillowImage:
    from PIL import Image as Pillow

    with Pillow.open(io.BytesIO(data), formats=[facts.format]) as opened:
        image: PillowImage = opened
        if image.size != (facts.width, facts.height):  # we were told of another, smaller one
            raise ValueError("two sizes")
        image.load()
        turn = _turn(image)
        if image.mode.startswith("I;16"):
            image = image.point(lambda v: v / 256).convert("L")
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            image = Pillow.alpha_composite(Pillow.new("RGBA", image.size, (0, 0, 0, 255)), image)
        upright = image if turn is None else image.transpose(turn)
        return upright if upright.mode == "RGB" else upright.convert("RGB")


def _turn(image: PillowImage) -> Any:
    """What the EXIF orientation asks for. EXIF that cannot be read asks for nothing."""
    from PIL.Image import Transpose

    try:
        orientation = int(image.getexif().get(0x0112) or 1)
    except Exception:
        return None
    return {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)  # fmt: skip


def inspect(data: bytes, pointer: str = "") -> ImageFacts:
    """Type, size and frames from the header alone.

    Raises UnsupportedMediaType (415) for another type, Invalid (422) for a header that is cut
    short, and for more pixels, frames or metadata than allowed.
    """
    read = _reader(data)
    try:
        facts: ImageFacts = read(data)
    except (struct.error, IndexError):
        raise _invalid("image-undecodable", "the image's header is cut short", pointer) from None
    except Refusal as refusal:
        raise _invalid(refusal.code, refusal.detail, pointer) from None
    _check_limits(facts, pointer)
    return facts


def _reader(data: bytes) -> Any:
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    if not data:
        raise Invalid("the image is empty", code="image-undecodable")
    raise UnsupportedMediaType(
        f"expected an image of type {', '.join(MEDIA_TYPES)}", code="image-type-not-allowed"
    )


def _invalid(code: str, detail: str, pointer: str) -> Invalid:
    return Invalid(detail, code=code, errors=[FieldError(pointer, code, detail)])


def _check_limits(facts: ImageFacts, pointer: str) -> None:
    width, height = facts.width, facts.height
    if not width or not height:
        raise _invalid("image-undecodable", f"an image of {width} x {height} pixels", pointer)
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        detail = f"{width} x {height} pixels; at most {MAX_PIXELS} and {MAX_SIDE} a side"
        raise _invalid("image-too-many-pixels", detail, pointer)
    if facts.frames > MAX_FRAMES:
        raise _invalid("image-too-complex", f"{facts.frames} frames; at most {MAX_FRAMES}", pointer)


_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ONE_SCAN = frozenset({0xC0})  # baseline: one scan, or one a component
_MARKER = re.compile(rb"\xff++([^\x00])", re.DOTALL)
_NEXT = re.compile(rb"\xff++([^\x00\xd0-\xd7])", re.DOTALL)  # pixels hold the others


def _jpeg(data: bytes) -> ImageFacts:
    """Walks the segments to the first scan. One frame header: decoders differ on which of two they
    believe."""
    facts, progressive, at = None, False, 2
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.match(data, at)
        if match is None:
            raise Invalid("a JPEG marker is missing", code="image-undecodable")
        marker, at = match[1][0], match.end()
        if marker in _NO_LENGTH:
            continue
        if marker in (0xD9, 0xDA):
            if facts is None:
                raise Invalid("a JPEG without a frame header", code="image-undecodable")
            if progressive:
                _check_scans(data, at)
            return facts
        length = struct.unpack_from(">H", data, at)[0]
        if marker in _START_OF_FRAME:
            if facts is not None or length < 8:
                raise Invalid("a JPEG with a bad frame header", code="image-undecodable")
            height, width = struct.unpack_from(">HH", data, at + 3)
            facts = ImageFacts("JPEG", width, height)
            progressive = marker not in _ONE_SCAN
        if length < 2:
            raise Invalid("a JPEG segment without a length", code="image-undecodable")
        at += length
    raise Invalid(f"more than {MAX_SEGMENTS} JPEG segments", code="image-too-complex")


def _check_scans(data: bytes, at: int) -> None:
    """From behind the marker of the first scan on to the end of the image."""
    scans = 1
    for _ in range(MAX_SEGMENTS):
        at += struct.unpack_from(">H", data, at)[0]
        match = _NEXT.search(data, at)
        if match is None or match[1] == b"\xd9":
            return
        at = match.end()
        scans += match[1] == b"\xda"
        if scans > MAX_SCANS:
            break
    raise Invalid(f"more than {MAX_SCANS} JPEG scans", code="image-too-complex")


def _png(data: bytes) -> ImageFacts:
    """IHDR for the size; the chunks before IDAT for frames and the weight of metadata."""
    if data[8:16] != b"\x00\x00\x00\x0dIHDR":
        raise Invalid("a PNG that does not begin with its header", code="image-undecodable")
    width, height = struct.unpack_from(">II", data, 16)
    frames, metadata, at = 1, 0, 33
    for _ in range(MAX_SEGMENTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            return ImageFacts("PNG", width, height, frames)
        if kind == b"IHDR":
            raise Invalid("a PNG with two headers", code="image-undecodable")
        if kind == b"acTL":
            frames = max(frames, struct.unpack_from(">I", data, at + 8)[0])
        elif kind in _PACKED_AT:
            metadata += _inflated(_PACKED_AT[kind].match(data, at + 8, at + 8 + length), length)
            if metadata > MAX_METADATA:
                raise Invalid("PNG metadata inflates too far", code="image-too-complex")
        at += 12 + length
    raise Invalid(f"more than {MAX_SEGMENTS} PNG chunks", code="image-too-complex")


#: Where the zlib stream of a chunk begins: behind its keyword and what else is told before it.
_PACKED_AT = {
    b"zTXt": re.compile(rb"[^\x00]*\x00.(.*)", re.DOTALL),
    b"iCCP": re.compile(rb"[^\x00]*\x00.(.*)", re.DOTALL),
    b"iTXt": re.compile(rb"[^\x00]*\x00[^\x00].[^\x00]*\x00[^\x00]*\x00(.*)", re.DOTALL),
}


def _inflated(match: re.Match[bytes] | None, length: int) -> int:
    """How far the zlib stream of a text or profile chunk inflates, counted up to the limit."""
    if match is None:
        return length
    stream, total, rest = zlib.decompressobj(), 0, match[1]
    try:
        while rest and total <= MAX_METADATA:
            total += len(stream.decompress(rest, 65536))
            rest = stream.unconsumed_tail
    except zlib.error:  # what it took until then was work
        return total + length
    return total


def _webp(data: bytes) -> ImageFacts:
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageFacts("WEBP", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L" and data[20:21] == b"\x2f":
        bits = struct.unpack_from("<I", data, 21)[0]
        return ImageFacts("WEBP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X" and len(data) >= 30:
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        frames = data.count(b"ANMF") if data[20] & _ANIMATED else 1
        return ImageFacts("WEBP", width, height, max(1, frames))
    raise Invalid("an unknown kind of WEBP", code="image-undecodable")


_ANIMATED = 0x02
