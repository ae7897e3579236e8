"""The one reader of image files: any image that Pillow opens, as 8-bit RGB, upright.

- Orientation: turned and mirrored as its EXIF or XMP data say, as a viewer shows it.
- Depth: grey values of more than 8 bits are scaled by the range of the file's type and rounded
  (16 bits: value / 257). 16-bit colour keeps its high byte. Signed, 32-bit and floating-point
  values are refused, since such a file does not say which value is white.
- Transparency: composed on a background, white unless another colour is asked for.
- Frames: of an animation, or of a file with several pages, the first is read, with a warning.
- Colour: grey, palette, CMYK and YCbCr images become RGB; colour profiles are not applied.
"""
from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

FIRST = ("PNG", "JPEG")  # the usual formats are tried first
EXCLUDED = {  # formats that Pillow opens, and whose pixels it does not give as they are meant
    "EPS",  # runs Ghostscript on the file
    "FITS",  # its 16-bit integers are signed, with an offset
    "IPTC", "MPEG",  # the header is all that is read
}
WHOLE_IN_FRAME_ONE = {"MPO", "PSD"}  # further frames are previews, second lenses or layers
TURNS = {  # EXIF orientation -> (H, W, 3) as stored to upright
    2: lambda z: z[:, ::-1], 3: lambda z: z[::-1, ::-1], 4: lambda z: z[::-1],
    5: lambda z: z.swapaxes(0, 1), 6: lambda z: np.rot90(z, -1),
    7: lambda z: z[::-1, ::-1].swapaxes(0, 1), 8: lambda z: np.rot90(z),
}


def read_image(file: str | Path, background: str = "white") -> UInt8[np.ndarray, "h w 3"]:
    """The image in a file, as a viewer shows it: numpy uint8 (H, W, 3), RGB.

    background: the colour under transparent pixels, by name or as "#rrggbb". ValueError, in one
    line, names the file and what is wrong with it. Of several frames it gives the first and warns.
    """
    image, frames = read_frame(file, background)
    if frames > 1:
        warnings.warn(f"{file} has {frames} frames; only the first is read", stacklevel=2)
    return image


def read_frame(file: str | Path,
               background: str = "white") -> tuple[UInt8[np.ndarray, "h w 3"], int]:
    """The first image in a file, numpy uint8 (H, W, 3), and how many frames the file has."""
    from PIL import Image

    below = _colour(background)
    try:
        with Image.open(file, formats=image_formats()) as opened:
            frames = 1 if opened.format in WHOLE_IN_FRAME_ONE else getattr(opened, "n_frames", 1)
            _scale_transparent_colour(opened)
            opened.load()
            turn = TURNS.get(_orientation(opened), np.asarray)
            return np.ascontiguousarray(turn(_rgb(opened, below))), frames
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise ValueError(_reason(file, error)) from error


def image_formats() -> tuple[str, ...]:
    """The names of the formats that this Pillow reads, the usual ones first."""
    from PIL import Image

    Image.init()
    return _with_decoder(tuple(Image.ID))


@functools.cache
def _with_decoder(known):
    others = [name for name in known if name not in {*FIRST, *EXCLUDED} and not _is_stub(name)]
    return (*FIRST, *others)


def _is_stub(name):
    """Whether Pillow knows a format by its header only."""
    from PIL import Image, ImageFile

    opener = Image.OPEN[name][0]
    return isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)


def image_endings() -> set[str]:
    """The endings of files that this Pillow reads as images, such as ".png", in lower case."""
    from PIL import Image

    formats = {*image_formats(), "MPO"}  # JPEG's reader opens it
    return {ending for ending, name in Image.registered_extensions().items() if name in formats}


def _rgb(image, background):
    """uint8 (H, W, 3) of a loaded Pillow image, as it is stored."""
    transparent = image.has_transparency_data
    if image.mode.startswith(("I", "F")):
        grey = _eight_bits(image)
        pixels = np.repeat(grey[..., None], 3, 2)
        if not transparent:
            return pixels
        alpha = np.where(np.asarray(image) == image.info["transparency"], 0, 255)
    elif transparent:
        stacked = np.asarray(image.convert("RGBA"))
        pixels, alpha = stacked[..., :3], stacked[..., 3]
    else:
        return np.asarray(image.convert("RGB"))
    return _over(background, pixels, alpha)


def _over(background, pixels, alpha):
    """Pixels uint8 (H, W, 3) with alpha (H, W) of 0 to 255, over one colour; rounded."""
    alpha = alpha[..., None].astype(np.uint16)
    return ((pixels * alpha + np.uint16(background) * (255 - alpha) + 127) // 255).astype(np.uint8)


def _eight_bits(image):
    """Grey values of more than 8 bits as uint8 (H, W), by the range of the file's type."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    depth = 16
    if image.mode.startswith("I;16"):
        depth = tags.get(258, (16,))[0]  # BitsPerSample: 12 bits come as 16 too
    elif image.mode != "I" or image.format not in ("PPM", "PNG"):  # these two have 16 bits at most
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit"
        raise ValueError(f"it has {kind} values and does not say which is white; "
                         "8 and 16 bits are read")
    top = 2**depth - 1
    values = np.asarray(image).astype(np.uint32)
    if tags.get(262) == 0:  # PhotometricInterpretation: 0 is white; Pillow inverts 8 bits only
        values = top - values
    return ((values * 255 + top // 2) // top).astype(np.uint8)


def _scale_transparent_colour(image):
    """Brings the one transparent colour of a PNG to 8 bits; Pillow does so for the pixels only."""
    colour = image.info.get("transparency")
    if image.format != "PNG" or colour is None or not image.tile:
        return
    raw = image.tile[0][3]
    if raw in ("L;2", "L;4"):
        image.info["transparency"] = colour * {"L;2": 85, "L;4": 17}[raw]
    elif raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _orientation(image):
    """The EXIF orientation, 1 to 8; 1 where the metadata are damaged, as in viewers."""
    try:
        return image.getexif().get(274, 1)
    except Exception:  # many kinds, as for damaged pixels
        return 1


def _colour(background):
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(background)[:3]
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"background is {background!r}; it must be a colour, by name (white) or "
                         "as #rrggbb") from error


def _reason(file, error):
    """One line on why a file is not read, and what to do."""
    from PIL import Image, UnidentifiedImageError

    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return f"{file} is not there, or is a link to a file that is not there"
    if isinstance(error, Image.DecompressionBombError):
        return (f"{file} has too many pixels ({said}); make it smaller, or raise "
                "PIL.Image.MAX_IMAGE_PIXELS")
    if isinstance(error, UnidentifiedImageError):
        empty = not Path(file).stat().st_size
        said = "it is empty" if empty else "its content is of no format that this Pillow reads"
    return f"{file} cannot be read as an image ({said}); replace or remove it"
