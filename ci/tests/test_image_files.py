"""Image files by value: orientation, depth, transparency, formats, against loops and made bytes."""
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from folders import refused
from PIL import Image, features

from sagelib import datasets
from sagelib.catalog import load
from sagelib.data.images import image_endings
from sagelib.datasets import mini_imagenet
from sagelib.datasets.folder import ImageFiles, read_image

COLOURS = np.uint8([[[250, 10, 10], [10, 250, 10], [10, 10, 250]],
                    [[240, 240, 10], [10, 240, 240], [90, 90, 90]]])
SHOWN = np.kron(COLOURS, np.ones((8, 8, 1), np.uint8))  # 16 x 24 pixels
OPTIONAL = [ending for ending in ("webp", "avif") if features.check(ending)]  # in this Pillow
SIDES = {  # the EXIF standard: where the stored first row and first column are shown
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom")}
SAVED = {"jpg": dict(quality=98, subsampling=0), "webp": dict(lossless=True),
         "avif": dict(quality=98, subsampling="4:4:4")}


def stored(shown, orientation):
    """What a camera writes for an image that is to be shown like this, pixel by pixel."""
    height, width = shown.shape[:2]
    first_row, first_column = SIDES[orientation]
    lying = first_row in ("left", "right")
    out = np.zeros((width, height, 3) if lying else (height, width, 3), np.uint8)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            place = {}
            for side, steps in ((first_row, i), (first_column, j)):
                axis, size = ("y", height) if side in ("top", "bottom") else ("x", width)
                place[axis] = steps if side in ("top", "left") else size - 1 - steps
            out[i, j] = shown[place["y"], place["x"]]
    return out


def save_turned(file, shown, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    options = SAVED.get(file.suffix[1:], {})
    Image.fromarray(stored(shown, orientation)).save(file, exif=exif, **options)
    return file


def png(file, depth, colour, rows, *chunks):
    """A PNG written by hand: rows of bytes, colour 0 grey, 2 RGB, 4 grey with alpha."""
    width = len(rows[0]) * 8 // (depth * {0: 1, 2: 3, 4: 2}[colour])
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + kind + data
        out += struct.pack(">I", zlib.crc32(kind + data))
    file.write_bytes(out)
    return file


def tiff(file, depth, data, width, height, white=1, sample_format=1, order="<"):
    """A TIFF written by hand: one strip of grey values; white=0: zero is white."""
    tags = {256: width, 257: height, 258: depth, 259: 1, 262: white, 273: 8, 277: 1, 278: height,
            279: len(data), 339: sample_format}
    data += b"\0" * (len(data) % 2)
    out = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8 + len(data)) + data
    out += struct.pack(order + "H", len(tags))
    for tag, value in tags.items():
        out += struct.pack(order + "HHII", tag, 4, 1, value)
    file.write_bytes(out + bytes(4))
    return file


def pgm(file, data):
    """A PGM of 256 x 256 values of 16 bits."""
    file.write_bytes(b"P5 256 256 65535\n" + data)
    return file


def grey(file):
    image = read_image(file)
    assert image.dtype == np.uint8 and image.ndim == 3
    assert (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()
    return image[..., 0]


# orientation

@pytest.mark.parametrize("ending", ["png", "jpg", "tif", *OPTIONAL])
@pytest.mark.parametrize("orientation", SIDES)
def test_an_image_is_read_as_a_viewer_shows_it(orientation, ending, tmp_path):
    found = read_image(save_turned(tmp_path / f"a.{ending}", SHOWN, orientation))
    assert found.shape == SHOWN.shape and found.flags.c_contiguous
    away = np.abs(found.astype(int) - SHOWN).max()
    assert away <= (0 if ending in ("png", "webp", "tif") else 12)


def test_damaged_metadata_leave_the_pixels_as_they_are(tmp_path):
    Image.fromarray(SHOWN).save(tmp_path / "a.png", exif=b"Exif\0\0no metadata at all")
    assert np.array_equal(read_image(tmp_path / "a.png"), SHOWN)
    exif = Image.Exif()
    exif[274] = 9
    Image.fromarray(SHOWN).save(tmp_path / "b.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "b.png"), SHOWN)


def test_sizes_are_compared_after_turning(image_folder):
    shown = np.kron(COLOURS, np.ones((6, 5, 1), np.uint8))  # 12 x 15
    for split, name in (("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")):
        for file in (image_folder / split / name).iterdir():
            file.unlink()
        Image.fromarray(shown).save(image_folder / split / name / "0.png")
        save_turned(image_folder / split / name / "1.PNG", shown, 6)
    train, _ = load(datasets, "folder", root=image_folder)
    for image in train.images:
        assert np.array_equal(image.permute(1, 2, 0).numpy(), shown)
    save_turned(image_folder / "train/dog/1.PNG", shown.swapaxes(0, 1), 6)  # stored as 12 x 15
    refused(image_folder, r"dog/1\.PNG is 15 x 12 pixels, not 12 x 15 as the others")


# depth

def over(colour, alpha, background):
    """A colour with its alpha in 0 to 255 over another, one channel at a time."""
    return [round((c * alpha + b * (255 - alpha)) / 255)
            for c, b in zip(colour, background, strict=True)]


EVERY = np.arange(65536).reshape(256, 256)


@pytest.mark.parametrize("write", [
    lambda to: png(to / "a.png", 16, 0, EVERY.astype(">u2").view(np.uint8)),
    lambda to: tiff(to / "a.tif", 16, EVERY.astype("<u2").tobytes(), 256, 256),
    lambda to: tiff(to / "a.tif", 16, EVERY.astype(">u2").tobytes(), 256, 256, order=">"),
    lambda to: tiff(to / "a.tif", 16, (65535 - EVERY).astype("<u2").tobytes(), 256, 256, white=0),
    lambda to: pgm(to / "a.pgm", EVERY.astype(">u2").tobytes()),
], ids=["PNG", "TIFF", "big-endian TIFF", "TIFF with a white zero", "PGM"])
def test_sixteen_bits_are_scaled_not_clipped(write, tmp_path):
    found = grey(write(tmp_path))
    assert np.array_equal(found, np.rint(EVERY / 257)) and len(np.unique(found)) == 256


def test_twelve_bits_are_scaled_by_their_own_range(tmp_path):
    values = np.arange(4096).reshape(64, 64)
    a, b = values[:, ::2].astype(np.uint16), values[:, 1::2].astype(np.uint16)
    packed = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], -1).astype(np.uint8)
    found = grey(tiff(tmp_path / "a.tif", 12, packed.tobytes(), 64, 64))
    assert np.array_equal(found, np.rint(values * 255 / 4095))


@pytest.mark.parametrize("kind, depth, sample_format, reason", [
    ("<i2", 16, 2, "signed or 32-bit"), ("<u4", 32, 1, "signed or 32-bit"),
    ("<i4", 32, 2, "signed or 32-bit"), ("<f4", 32, 3, "floating-point")])
def test_values_without_a_stated_range_are_refused(kind, depth, sample_format, reason, tmp_path):
    data = np.arange(30).astype(kind).tobytes()
    file = tiff(tmp_path / "a.tif", depth, data, 6, 5, sample_format=sample_format)
    said = rf"a\.tif cannot be read .* \(it has {reason} values and does not say which is white"
    with pytest.raises(ValueError, match=said):
        read_image(file)


def test_other_depths_and_colours_of_png(tmp_path):
    rows = np.random.default_rng(0).integers(0, 65536, (5, 4, 3))
    data = rows.reshape(5, 12).astype(">u2").view(np.uint8)
    found = read_image(png(tmp_path / "rgb.png", 16, 2, data))
    assert np.abs(found - rows / 257).max() < 1  # the high byte
    bits = grey(png(tmp_path / "1.png", 1, 0, [[0b10100000]]))
    assert bits[0].tolist() == [255, 0, 255, 0, 0, 0, 0, 0]
    assert grey(png(tmp_path / "2.png", 2, 0, [[0b00011011]]))[0].tolist() == [0, 85, 170, 255]
    wide = np.array([[0, 65535, 0, 0, 51400, 65535, 51400, 32896]], ">u2")  # each with its alpha
    found = grey(png(tmp_path / "la.png", 16, 4, wide.view(np.uint8)))
    assert found[0].tolist() == [0, 255, 200, over([200], 128, [255])[0]]


def test_cmyk_and_ycbcr_are_colours(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    Image.fromarray(SHOWN).save(tmp_path / "b.jpg", quality=98, subsampling=0)  # stored as YCbCr
    Image.new("YCbCr", (8, 8), (76, 85, 255)).save(tmp_path / "c.tif")
    assert np.abs(read_image(tmp_path / "a.jpg") - np.array([255.0, 0, 0])).max() < 4
    assert np.abs(read_image(tmp_path / "b.jpg").astype(int) - SHOWN).max() < 12
    assert np.abs(read_image(tmp_path / "c.tif") - np.array([255.0, 0, 0])).max() < 4


# transparency

@pytest.mark.parametrize("background, rgb", [("white", (255, 255, 255)), ("#102030", (16, 32, 48))])
def test_transparent_pixels_show_the_background(background, rgb, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    pixels[..., 3] = np.arange(256).reshape(16, 16)  # every alpha
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", background)
    for i in range(16):
        for j in range(16):
            *colour, alpha = pixels[i, j].tolist()
            assert found[i, j].tolist() == over(colour, alpha, rgb)
    Image.fromarray(np.uint8([[[7, 0], [7, 255], [100, 51]]])).save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png", background)[0].tolist() == [
        list(rgb), [7] * 3, over([100] * 3, 51, rgb)]


def test_a_palette_can_be_transparent(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "each.png", transparency=bytes([0, 128, 255]))
    assert read_image(tmp_path / "each.png")[0].tolist() == [
        [255] * 3, over((40, 50, 60), 128, [255] * 3), [70, 80, 90]]
    image.save(tmp_path / "one.png", transparency=1)
    assert read_image(tmp_path / "one.png")[0].tolist() == [[10, 20, 30], [255] * 3, [70, 80, 90]]
    image.save(tmp_path / "one.gif", transparency=1)
    assert read_image(tmp_path / "one.gif")[0].tolist() == [[10, 20, 30], [255] * 3, [70, 80, 90]]


@pytest.mark.parametrize("depth, key, row, shown", [
    (1, 0, [0b01000000], [255] * 8), (2, 1, [0b00011011], [0, 255, 170, 255]),
    (4, 1, [0x1F, 0x20], [255, 255, 34, 0]),
    (8, 7, [6, 7, 8], [6, 255, 8]), (16, 257, [0, 0, 1, 1, 2, 2], [0, 255, 2])])
def test_one_grey_value_can_be_transparent_at_every_depth(depth, key, row, shown, tmp_path):
    file = png(tmp_path / "a.png", depth, 0, [row], (b"tRNS", struct.pack(">H", key)))
    assert grey(file)[0].tolist() == shown


def test_one_colour_can_be_transparent(tmp_path):
    key = (b"tRNS", struct.pack(">3H", 1, 2, 3))
    file = png(tmp_path / "8.png", 8, 2, [[1, 2, 3, 1, 2, 4]], key)
    assert read_image(file)[0].tolist() == [[255] * 3, [1, 2, 4]]
    deep = np.array([[256, 512, 768, 2304, 512, 768]], ">u2").view(np.uint8)
    file = png(tmp_path / "16.png", 16, 2, deep, (b"tRNS", struct.pack(">3H", 256, 512, 768)))
    assert read_image(file)[0].tolist() == [[255] * 3, [9, 2, 3]]


def test_the_data_set_takes_the_background(image_folder):
    Image.new("RGBA", (16, 12), (200, 0, 0, 0)).save(image_folder / "train/cat/9.png")
    assert load(datasets, "folder", root=image_folder)[0].images[3].unique().tolist() == [255]
    train, _ = load(datasets, "folder", root=image_folder, background="black")
    assert train.images[3].unique().tolist() == [0]
    refused(image_folder, "background is 'whiet'; it must be a colour, by name", background="whiet")


# which files are read

LEFTOVERS = [".ipynb_checkpoints/0-checkpoint.png", "._0.png", ".hidden.png", ".git/deep/0.png",
             "__MACOSX/0.png", "__MACOSX/._0.png", "Thumbs.db", ".DS_Store", "desktop.ini",
             "@eaDir/0.png"]


def leave_behind(folder):
    for name in LEFTOVERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12)).save(folder / name, "PNG")
    (folder / "._1.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")


def test_leftovers_of_editors_and_systems_are_passed_over(image_folder):
    before = load(datasets, "folder", root=image_folder)
    for place in (".", "train", "train/cat", "train/cat/deep/er", "test", "test/dog"):
        leave_behind(image_folder / place)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = load(datasets, "folder", root=image_folder)
    for one, two in zip(before, after, strict=True):
        assert one.classes == two.classes
        assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)


def test_what_pillow_reads_is_read_and_the_rest_is_counted_and_named(image_folder):
    pixels = np.random.default_rng(2).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    (image_folder / "train/cat/more").mkdir()
    lossless = ("a.tif", "b.TIFF", "c.bmp", "d.ppm", "e.tga", "f.qoi", "more/g.PNG", "h.apng")
    for name in lossless:
        kind = "PNG" if name.endswith("apng") else None
        Image.fromarray(pixels).save(image_folder / "train/cat" / name, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, _ = load(datasets, "folder", root=image_folder)
    assert train.labels.tolist() == [0] * 11 + [1] * 3
    for image in train.images[3:11]:
        assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
    for name in ("a.heic", "b.HEIC", "c.txt", "d"):
        (image_folder / "train/dog" / name).write_text("not read")
    with pytest.warns(UserWarning) as caught:
        load(datasets, "folder", root=image_folder)
    said, = (str(w.message) for w in caught)
    assert "\n" not in said and "train: 4 of 18 files are left out" in said
    assert ": .heic (2), .txt (1), no ending (1), for example dog/a.heic; read: .png (7), " in said


@pytest.mark.parametrize("ending", ["gif", "jfif", "ico", *OPTIONAL])
def test_other_endings_are_read_where_pillow_can(ending, image_folder):
    for file in (image_folder / "train/cat").glob("*.png"):
        sizes = {"sizes": [(16, 12)]} if ending == "ico" else {}
        Image.open(file).save(file.with_suffix("." + ending), **sizes)
        file.unlink()
    assert load(datasets, "folder", root=image_folder)[0].labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_nothing_runs_a_program_or_reads_a_header_for_an_image(tmp_path):
    assert not {".eps", ".ps", ".mpg", ".h5", ".hdf", ".grib", ".wmf", ".fits"} & image_endings()
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n")
    with pytest.raises(ValueError, match=r"a\.png cannot be read .*\(its content is of no format"):
        read_image(tmp_path / "a.png")


def test_of_several_frames_the_first_is_read_and_that_is_said(image_folder):
    frames = [Image.new("RGB", (16, 12), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    for name in ("a.gif", "b.tif", "c.png", "d.webp"):
        file = image_folder / "train/cat" / name
        frames[0].save(file, save_all=True, append_images=frames[1:], lossless=True)
    with pytest.warns(UserWarning) as caught:
        train, _ = load(datasets, "folder", root=image_folder)
    assert [str(w.message) for w in caught] == [
        f"{image_folder / 'train'}: of 4 file(s) with several frames only the first frame is read, "
        "for example cat/a.gif"]
    assert (train.images[3:7, :, 5, 5] == torch.tensor([250, 0, 0], dtype=torch.uint8)).all()
    with pytest.warns(UserWarning, match=r"b\.tif has 2 frames; only the first is read"):
        read_image(image_folder / "train/cat/b.tif")
    with warnings.catch_warnings():  # a phone's JPEG with a preview in it is one image
        warnings.simplefilter("error")
        frames[0].save(image_folder / "p.jpg", "MPO", save_all=True, append_images=frames[1:])
        assert np.abs(read_image(image_folder / "p.jpg")[5, 5] - np.array([250.0, 0, 0])).max() < 6


def test_images_beside_the_class_folders_are_named(image_folder):
    Image.new("RGB", (16, 12)).save(image_folder / "train/lost.jpg")
    with pytest.warns(UserWarning, match=r"train: 1 image\(s\) are in no class folder.*lost\.jpg"):
        load(datasets, "folder", root=image_folder)


def test_links_are_followed_and_loops_and_dead_links_are_named(image_folder, tmp_path):
    (image_folder / "train/cat").rename(tmp_path / "cats")
    (image_folder / "train/cat").symlink_to(tmp_path / "cats")
    (tmp_path / "more").mkdir()
    Image.new("RGB", (16, 12), (9, 9, 9)).save(tmp_path / "more/9.png")
    (tmp_path / "cats/sub").symlink_to(tmp_path / "more")
    train, _ = load(datasets, "folder", root=image_folder)
    assert train.labels.tolist() == [0] * 4 + [1] * 3 and train.images[3].unique().tolist() == [9]
    (tmp_path / "more/back").symlink_to(tmp_path / "cats")
    refused(image_folder, r"cat/sub/back is a link to a folder that it is in itself")
    (tmp_path / "more/back").unlink()
    (tmp_path / "more/x.png").symlink_to("nowhere")
    refused(image_folder, r"x\.png is not there, or is a link to a file that is not there")


def test_a_pipe_with_the_name_of_an_image_is_not_waited_for(image_folder):
    os.mkfifo(image_folder / "train/cat/a.png")
    with pytest.warns(UserWarning, match="1 of 7 files are left out"):
        assert len(load(datasets, "folder", root=image_folder)[0]) == 6


# one clear error each

def jpeg_cut_short(file):
    Image.fromarray(SHOWN).save(file, "JPEG")
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize("spoil, message", [
    (lambda file: file.write_bytes(b""), r"cannot be read as an image \(it is empty\); replace or"),
    (lambda file: file.write_text("text"), r"cannot be read as an image \(its content is of no f"),
    (jpeg_cut_short, r"cannot be read as an image \(image file is truncated"),
    (lambda file: file.write_bytes(file.read_bytes()[:200]), "cannot be read as an image"),
    (lambda file: png(file, 8, 0, [[0] * 900] * 3), r"has too many pixels \(.*\); make it smaller"),
], ids=["empty", "text", "JPEG cut short", "PNG cut short", "too large"])
def test_a_damaged_file_is_one_clear_error(spoil, message, image_folder, monkeypatch):
    spoil(image_folder / "test/dog/0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused(image_folder, r"test/dog/0\.png " + message)


def test_an_error_names_what_the_folder_has_instead(image_folder):
    for file in (image_folder / "test/cat").iterdir():
        file.rename(file.with_suffix(".heic"))
    refused(image_folder, r"cat has no image that Pillow reads .*; it has \.heic \(2\)")


def test_two_class_folders_that_differ_in_case_are_refused(image_folder):
    (image_folder / "train/Cat").mkdir()
    refused(image_folder, r"train has the class folders 'Cat' and 'cat', which are one")


# the other readers

def test_files_of_any_size_come_one_at_a_time(image_folder):
    save_turned(image_folder / "train/cat/0.png", SHOWN, 8)
    leave_behind(image_folder / "train")
    leave_behind(image_folder / "train/dog")
    found = ImageFiles(image_folder / "train", np.array)
    assert len(found) == 6 and found.classes == ("cat", "dog")
    assert found.targets == [0, 0, 0, 1, 1, 1]
    assert [file.name for file, _ in found.samples] == ["0.png", "1.png", "2.png"] * 2
    assert np.array_equal(found[0][0], SHOWN) and found[0][1] == 0
    for k in range(1, 6):
        with Image.open(found.samples[k][0]) as opened:
            assert np.array_equal(found[k][0], np.asarray(opened)) and found[k][1] == k // 3
    sizes = [tuple(image.shape) for image, _ in torch.utils.data.DataLoader(found, 1)]
    assert sizes == [(1, 16, 24, 3), *[(1, 12, 16, 3)] * 5]
    (image_folder / "test/emu").mkdir()
    with pytest.raises(ValueError, match="has the class 'emu' that the training set does not have"):
        ImageFiles(image_folder / "test", np.array, found.classes)


def test_mini_imagenet_reads_its_files_the_same_way(tmp_path, monkeypatch):
    monkeypatch.setattr(mini_imagenet, "EACH", 1)
    shown = np.kron(COLOURS, np.ones((42, 28, 1), np.uint8))  # 84 x 84
    for split, names in mini_imagenet.CLASSES.items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (84, 84), (5, 5, 5)).save(tmp_path / split / name / "0.jpg")
    folder = tmp_path / "val" / mini_imagenet.CLASSES["val"][0]
    (folder / "0.jpg").unlink()
    save_turned(folder / "0.TIF", shown, 8)
    leave_behind(folder)
    (folder / "list.csv").write_text("")
    said = r"val: 1 of 17 files are left out.*\.csv \(1\).*; read: \.jpg \(15\), \.tif \(1\)"
    with pytest.warns(UserWarning, match=said):
        val = load(datasets, "mini_imagenet", root=tmp_path).val
    assert np.array_equal(val.images[0].permute(1, 2, 0).numpy(), shown)


def test_cifar_reads_its_files_the_same_way(cifar_tree):
    root = cifar_tree("cifar10", [f"class{k}" for k in range(10)])
    leave_behind(root / "cifar10/train/class3")
    train, test = load(datasets, "cifar10", root=root)
    assert train.images[:, 0, 0, 0].tolist() == list(range(10)) == test.images[:, 0, 0, 0].tolist()
