import contextlib
import io
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageSequence

from pictura.data import decode as module
from pictura.data.decode import MAX_CAPTION, caption_lines, clean_caption, clean_captions, decode
from pictura.data.source import BadSample
from tests.data.files import encoded, jpeg, photo, shared

WHITE, RED = (255, 255, 255), (255, 0, 0)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """Pillow's warnings must not reach anybody (pytest makes any warning an error)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def near(ours: Image.Image, theirs: Image.Image, most: int = 0) -> None:
    assert (ours.mode, ours.size) == ("RGB", theirs.size)
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs.convert("RGB")).astype(int))
    assert difference.max() <= most


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_exact_formats(form: str) -> None:
    picture = photo().quantize(16).convert("RGB")
    near(decode(encoded(picture, form)), picture)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF"])
def test_photographic_formats_are_as_pillow_gives_them(form: str) -> None:
    if form not in module._formats():
        pytest.skip(f"this Pillow has no {form}")
    data = encoded(photo((64, 48)), form, quality=95)
    near(decode(data), Image.open(io.BytesIO(data)))
    near(decode(data), photo((64, 48)), most=16)


def test_pixels_pass_through() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode(pixels)), pixels)
    assert np.array_equal(np.asarray(decode(pixels[::-1, ::2])), pixels[::-1, ::2])
    for wrong in (pixels[..., :1], pixels.astype(np.float32), pixels[0], pixels[:0]):
        with pytest.raises(BadSample, match="pixels must be"):
            decode(wrong, key="k")


@pytest.mark.parametrize(
    ("at_least", "expected"), [(None, 320), (241, 320), (240, 320), (120, 160), (100, 160), (60, 80), (30, 40), (1, 40)]
)
def test_a_jpeg_is_scaled_while_decoding_and_never_too_far(at_least: int | None, expected: int) -> None:
    picture = decode(encoded(photo((320, 240)), "JPEG", quality=95), at_least=at_least)
    assert picture.size == (expected, expected * 3 // 4)
    near(picture, photo((320, 240)).resize(picture.size, Image.Resampling.BOX), most=12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_turns(orientation: int, form: str) -> None:
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste(RED, (0, 0, 16, 16))  # top left
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that the orientation undoes
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if form in ("JPEG", "WEBP") else {}
    near(decode(encoded(stored, form, exif=exif, **options)), upright, most=90)


def test_damaged_exif_does_no_harm() -> None:
    for exif in (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12",
        b"Exif\0\0" + b"\xff" * 40,
        b"Exif\0\0II*\0\xff\xff\xff\xff",
    ):
        near(decode(encoded(photo(), "JPEG", exif=exif)), Image.open(io.BytesIO(jpeg())))
    strange = Image.Exif()
    strange[0x0112] = 77
    near(decode(encoded(photo(), "PNG", exif=strange)), photo())


def test_cmyk() -> None:
    picture = photo((64, 64)).convert("CMYK")
    near(decode(encoded(picture, "TIFF")), picture)
    near(decode(encoded(picture, "JPEG", quality=100, subsampling=0)), picture, most=8)
    near(
        decode(encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG"), at_least=16),
        Image.new("RGB", (16, 16), RED),
        3,
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "1"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    if mode in ("RGBA", "LA"):
        picture = Image.new(mode, (4, 2), (0, 0) if mode == "LA" else (0, 0, 0, 0))
        picture.paste((0, 255) if mode == "LA" else (0, 0, 0, 255), (0, 0, 2, 2))
        data = encoded(picture)
    else:  # a colour that is transparent: index 0, or black
        see_through: Any = {"P": 1, "RGB": (0, 0, 9), "L": 9, "1": 0}[mode]
        picture = Image.new(mode, (4, 2), see_through)
        if mode == "P":
            picture.putpalette([0, 0, 0, 0, 0, 0])
        picture.paste(255 if mode == "1" else 0, (0, 0, 2, 2))
        data = encoded(picture, transparency=see_through)
    expected = Image.new("RGB", (4, 2), WHITE)
    if mode != "1":
        expected.paste((0, 0, 0), (0, 0, 2, 2))
    near(decode(data), expected)


def test_half_transparency() -> None:
    near(decode(encoded(Image.new("RGBA", (2, 2), (255, 0, 0, 128)))), Image.new("RGB", (2, 2), (255, 127, 127)))
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([255, 0, 0])
    near(decode(encoded(palette, transparency=b"\x80")), Image.new("RGB", (2, 2), (255, 127, 127)))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(form: str) -> None:
    values = np.array([[0, 256, 257, 1000, 32896, 65535]], dtype=np.uint16)
    grey = np.asarray(decode(encoded(Image.fromarray(values), form)))[0, :, 0]
    assert grey.tolist() == [0, 1, 1, 4, 128, 255]
    dark = Image.fromarray(np.full((3, 3), 514, dtype=np.uint16))
    near(decode(encoded(dark, form)), Image.new("RGB", (3, 3), (2, 2, 2)))


def test_deep_and_float_tiffs() -> None:
    def shades(values: Any) -> list[int]:
        return np.asarray(decode(encoded(Image.fromarray(np.array([values])), "TIFF")))[0, :, 0].tolist()

    assert shades(np.array([0, 0.5, 1], np.float32)) == [0, 128, 255]
    assert shades(np.array([0, 0.25], np.float32)) == [0, 64]
    assert shades(np.array([0, 100, 254.6], np.float32)) == [0, 100, 255]
    assert shades(np.array([-1, 0, 1], np.float32)) == [0, 128, 255]
    assert shades(np.array([np.nan, 0.2, np.inf], np.float32)) == [0, 51, 0]
    assert shades(np.array([-3, -3], np.float32)) == [0, 0]
    assert shades(np.array([0, 65535], np.int32)) == [0, 255]
    assert shades(np.array([0, 2**30, 2**31 - 1], np.int32)) == [0, 128, 255]
    assert shades(np.array([-100, 100], np.int32)) == [0, 255]
    with pytest.raises(BadSample, match="no pixel holds a number"):
        shades(np.array([np.nan, np.inf], np.float32))


def test_a_deep_pgm() -> None:
    near(
        decode(b"P5 2 1 65535 " + bytes([0x80, 0x80, 0x02, 0x02])),
        Image.fromarray(np.array([[128, 2]], dtype=np.uint8)),
    )


def test_1_bit() -> None:
    picture = Image.new("1", (4, 2), 0)
    picture.paste(1, (0, 0, 2, 2))
    near(decode(encoded(picture)), picture)
    near(decode(encoded(picture, "TIFF")), picture)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert sum(1 for _ in ImageSequence.Iterator(Image.open(io.BytesIO(data)))) == 3
    near(decode(data), frames[0])


def test_a_phones_multi_picture_jpeg() -> None:
    data = encoded(photo((64, 48)), "MPO", save_all=True, append_images=[photo((32, 24), seed=1)], quality=95)
    near(decode(data), photo((64, 48)), most=16)
    assert decode(data, at_least=10).size == (16, 12)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated(form: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8))
    data = encoded(noise, form, **({"lossless": True} if form == "WEBP" else {}))
    with pytest.raises(BadSample, match=r"^some/path\.jpg: (cut short|damaged|not a picture)") as caught:
        decode(data[: int(len(data) * share)], key="some/path.jpg")
    assert "BytesIO" not in caught.value.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"\0" * 5000, "zero bytes"),
        (b"\n<!DOCTYPE html><html><body>404 Not Found", "a web page"),
        (b"\xef\xbb\xbf<HTML>", "a web page"),
        (b"<?xml version='1.0'?><svg/>", "XML or SVG"),
        (b'{"error": "rate limit"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"PK\x03\x04aaaa", "ZIP"),
        (b"just words", "not a picture"),
        (b"\xff\xd8\xff\xe0", "not a picture, or damaged at its beginning|cut short|damaged"),
    ],
)
def test_what_is_not_a_picture_is_called_by_its_name(data: bytes, reason: str) -> None:
    with pytest.raises(BadSample, match=reason) as caught:
        decode(data, key="k")
    assert caught.value.key == "k"


@pytest.mark.parametrize("form", ["EPS", "ICO", "PDF", "TGA", "PCX", "SGI", "DDS"])
def test_strangers_formats_are_not_tried(form: str) -> None:
    with pytest.raises(BadSample, match="not a picture"):
        decode(encoded(Image.new("RGB", (32, 32)), form))


def test_bombs_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def png(width: int, height: int) -> bytes:  # a header that promises, and nothing after it
        data = bytearray(small)
        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        return bytes(data)

    small = encoded(Image.new("L", (16, 16)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(BadSample, match=r"more than 178,956,970 pixels"):
        decode(png(60_000, 60_000))
    with pytest.raises(BadSample, match=r"10,000 x 10,000 pixels, more than 50,000,000"):
        decode(png(10_000, 10_000), max_pixels=50_000_000)
    with pytest.raises(BadSample, match="too long and thin"):
        decode(png(100_000, 2))
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(BadSample, match="above the limit of 100"):
        decode(b"x" * 101)


def test_between_pillows_two_limits_a_picture_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # above it Pillow warns, above twice as many it refuses
    assert decode(jpeg()).size == (40, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(BadSample, match="pixels"):
        decode(jpeg())


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"]), st.data())
def test_any_damage_gives_a_picture_or_a_bad_sample(form: str, draw: Any) -> None:
    data = bytearray(encoded(photo(), form))
    for place in draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=6)):
        data[place] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(BadSample):
        assert decode(bytes(data)).mode == "RGB"


def test_captions() -> None:
    assert clean_caption("  a cat \n", "k") == "a cat"
    assert clean_caption("ein schöner Hund 🐕", "k") == "ein schöner Hund 🐕"
    assert clean_caption("a café by the sea".encode(), "k") == "a café by the sea"
    assert clean_caption(b"\xef\xbb\xbfa cat", "k") == "a cat"
    assert clean_caption("a cat".encode("utf-16"), "k") == "a cat"
    assert clean_caption("a\x00 cat on a mat", "k") == "a  cat on a mat"
    assert clean_caption("a\tcat\nbelow", "k") == "a\tcat\nbelow"
    for empty in ("", " \n\t", b"", b"\xef\xbb\xbf", "\x00", "\u3000"):
        with pytest.raises(BadSample, match=r"k: (empty caption|caption is not)"):
            clean_caption(empty, "k")


def test_captions_that_are_not_utf_8() -> None:
    assert clean_caption("a café by the sea".encode("latin-1"), "k") == "a caf� by the sea"
    assert clean_caption(b"a caf\xe9 by the sea".decode("utf-8", "surrogateescape"), "k") == "a caf� by the sea"
    for other in ("日本の猫".encode("shift-jis"), "кошка".encode("koi8-r"), jpeg()[:300], "a cat".encode("utf-32-le")):
        with pytest.raises(BadSample, match="not UTF-8"):
            clean_caption(other, "k")
    with pytest.raises(BadSample, match="not UTF-8"):
        clean_caption("\ud800\udfff", "k")


def test_captions_of_any_length() -> None:
    assert clean_caption("x", "k") == "x"
    assert len(clean_caption("word " * 10**6, "k")) <= MAX_CAPTION
    assert len(clean_caption("wörd " * 10**6, "k")) <= MAX_CAPTION
    assert sum(map(len, caption_lines(b"word " * 10**7, "k"))) <= MAX_CAPTION


@settings(deadline=None)
@given(st.one_of(st.binary(), st.text(st.characters(categories=None))))
def test_any_caption_is_cleaned_or_bad(text: str | bytes) -> None:
    try:
        caption = clean_caption(text, "k")
        assert caption == caption.strip() != ""
        assert caption.encode().decode() == caption  # no surrogates: a tokenizer takes it
        assert clean_caption(caption, "k") == caption
    except BadSample:
        pass


def test_several_captions() -> None:
    assert clean_captions(["", "a", b"\xff\xff", " b "], "k") == ["a", "b"]
    assert caption_lines(b"a\r\n\n b \n", "k") == ["a", "b"]
    with pytest.raises(BadSample, match="empty caption"):
        clean_captions(["", b"\xff\xff"], "k")
    for nothing in (b"", b"\n \n"):
        with pytest.raises(BadSample, match="empty caption"):
            caption_lines(nothing, "k")
    with pytest.raises(BadSample, match="no caption"):
        clean_captions([], "k")


def test_real_photographs() -> None:
    for path in sorted(shared("coco-mini/val2017").glob("*.jpg"))[:5]:
        data = path.read_bytes()
        near(decode(data), Image.open(path))
        small = decode(data, at_least=100)
        assert 100 <= min(small.size) < 200
