"""Class folders of images: every mode and orientation that Pillow knows of, and everything that can be wrong."""

import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from handgrad.data import batches, image_files, image_folder, prefetch, read_images

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 4, 3), np.uint8)
GREY = RNG.integers(0, 256, (5, 4), np.uint8)


def save(folder, name, array: Any = COLOUR, **settings):
    path = Path(folder, name)
    path.parent.mkdir(exist_ok=True, parents=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **settings)
    return path


@pytest.fixture
def folder(tmp_path):
    """cat: b.png, a.png (black, white); dog: z.PNG."""
    for name, array in (("cat/b.png", GREY * 0), ("cat/a.png", GREY * 0 + 255), ("dog/z.PNG", COLOUR)):
        save(tmp_path, name, array)
    return tmp_path


def test_order_labels_and_pixels(folder):
    x, y, classes = image_folder(str(folder))
    assert classes == ("cat", "dog") and y.dtype == np.int32 and y.tolist() == [0, 0, 1]
    assert x.dtype == np.uint8 and x.shape == (3, 5, 4, 3)
    assert (x[0] == 255).all() and (x[1] == 0).all()
    np.testing.assert_array_equal(x[2], COLOUR)


def test_order_is_by_code_point_whatever_the_folder_lists_first(tmp_path, monkeypatch):
    names = ["B/2.png", "B/10.png", "B/Z.png", "B/a.png", "a/1.png", "é/1.png", "Z/1.png"]
    for name in names:
        save(tmp_path, name)
    files = image_files(tmp_path)
    assert files.classes == ("B", "Z", "a", "é") and files.y.tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert [Path(path).name for path in files.paths[:4]] == ["10.png", "2.png", "Z.png", "a.png"]
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(listed(self))))
    assert image_files(tmp_path).paths.tolist() == files.paths.tolist()


def test_named_classes_have_their_order_and_must_be_there(folder):
    assert image_files(folder, classes=("dog", "cat")).y.tolist() == [0, 1, 1]
    for classes, odd in (
        (("cat",), r"\['dog'\]"),
        (("cat", "dog", "cow"), r"\['cow'\]"),
        (("cat", "cat", "dog"), "names"),
    ):
        with pytest.raises(ValueError, match=f"must hold the class folders .*; it differs in {odd}"):
            image_files(folder, classes=classes)


def test_hidden_names_are_passed_over_and_other_files_beside_the_folders(folder):
    for name in (".DS_Store", "cat/.hidden.txt", "README.md"):
        (folder / name).write_bytes(b"x")
    (folder / ".git").mkdir()
    assert len(image_files(folder).paths) == 3


def test_links_are_followed_and_broken_ones_named(folder):
    (folder / "cat" / "c.png").symlink_to(folder / "dog" / "z.PNG")
    (folder / "wolf").symlink_to(folder / "dog")
    x, y, classes = image_folder(folder)
    assert classes == ("cat", "dog", "wolf") and y.tolist() == [0, 0, 0, 1, 2]
    np.testing.assert_array_equal(x[2], COLOUR)
    (folder / "dog" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(FileNotFoundError, match="dog/gone.png is a link that leads nowhere"):
        image_files(folder)
    (folder / "dog" / "gone.png").unlink()
    (folder / "ring").symlink_to(folder / "ring")
    with pytest.raises((FileNotFoundError, OSError), match="ring"):
        image_files(folder)


def test_what_is_wrong_with_a_folder_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="there is no folder .*none; name one that holds a folder for each class"
    ):
        image_files(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no class folder; put each class's images into a folder in it"):
        image_files(tmp_path)
    save(tmp_path, "lost.png")
    with pytest.raises(ValueError, match="lost.png lies beside the class folders"):
        image_files(tmp_path)
    (tmp_path / "lost.png").unlink()
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match="the class folder .*cat holds no image; fill it or take it out"):
        image_files(tmp_path)
    for name in ("notes.txt", "scan.bmp", "below"):
        path = tmp_path / "cat" / name
        path.mkdir() if name == "below" else path.touch()
        with pytest.raises(ValueError, match=f"cat/{name} must be a file that ends in .jpg, .jpeg, .png; take it out"):
            image_files(tmp_path)
        path.rmdir() if name == "below" else path.unlink()
    os.mkfifo(tmp_path / "cat" / "pipe.png")  # to open it would wait for ever
    with pytest.raises(ValueError, match=r"cat/pipe.png must be a file"):
        image_files(tmp_path)


WHITE = np.full((5, 4), 255, np.uint8)
HALF = np.dstack([COLOUR, WHITE // 2])
MODES = {  # image, settings of save, expected in colour
    "RGB": (COLOUR, COLOUR),
    "L": (GREY, np.dstack([GREY] * 3)),
    "1": (Image.fromarray(GREY > 127), np.dstack([WHITE * (GREY > 127)] * 3)),
    "LA opaque": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(WHITE)]), np.dstack([GREY] * 3)),
    "RGBA opaque": (np.dstack([COLOUR, WHITE]), COLOUR),
    "RGBA clear": (np.dstack([COLOUR, 0 * WHITE]), np.dstack([WHITE] * 3)),
    "palette": (Image.fromarray(COLOUR).quantize(20), None),
    "16 bits": (Image.fromarray(GREY.astype(np.uint16) * 257), np.dstack([GREY] * 3)),
}


@pytest.mark.parametrize(("array", "expected"), MODES.values(), ids=MODES)
def test_every_mode_of_png(tmp_path, array, expected):
    expected = np.asarray(array.convert("RGB")) if expected is None else expected
    path = save(tmp_path, "x.png", array)
    np.testing.assert_array_equal(read_images([path])[0], expected)
    grey = read_images([path], channels=1)
    assert grey.shape == (1, 5, 4, 1) and grey.dtype == np.uint8
    luma = (expected.astype(int) * [299, 587, 114]).sum(-1) / 1000
    assert abs(grey[0, :, :, 0] - luma).max() <= 1


def test_half_transparent_pixels_are_laid_on_white(tmp_path):
    found = read_images([save(tmp_path, "x.png", HALF)])[0].astype(float)
    alpha = 127 / 255
    assert abs(found - (alpha * COLOUR + (1 - alpha) * 255)).max() <= 1


def test_a_palette_with_a_transparent_colour_is_laid_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpixel((1, 0), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    found = read_images([save(tmp_path, "x.png", image, transparency=0)])
    assert found[0, 0].tolist() == [[255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
def test_every_mode_of_jpeg(tmp_path, mode):
    smooth = np.dstack([np.linspace(i, 200, 16 * 16).reshape(16, 16) for i in (0, 50, 100)]).astype(np.uint8)
    image = Image.fromarray(smooth).convert(mode)
    found = read_images([save(tmp_path, "x.jpg", image, quality=95)])[0]
    assert abs(found.astype(int) - np.asarray(image.convert("RGB"))).max() < 12


UPRIGHT = {  # EXIF orientation -> what makes the stored picture upright
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_exif_orientation(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = np.zeros((16, 32, 3), np.uint8)
    array[:8, :16] = 255  # the upper left quarter is white
    found = read_images([save(tmp_path, f"x.{kind}", array, exif=exif)])[0]
    expected = UPRIGHT[orientation](array)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found > 127, expected > 127)


def test_sizes(tmp_path):
    small, wide = save(tmp_path, "small.png"), save(tmp_path, "wide.png", np.repeat(COLOUR, 2, 1))
    with pytest.raises(ValueError, match="wide.png is 5x8, but .*small.png is 5x4; give a size to bring all to"):
        read_images([small, wide])
    found = read_images([small, wide], (10, 6))
    assert found.shape == (2, 10, 6, 3)
    assert read_images([wide], 3).shape == (1, 3, 3, 3)
    bars = np.zeros((4, 12, 3), np.uint8)
    bars[:, 4:8] = 255  # the middle third is what a square of the height shows
    assert (read_images([save(tmp_path, "bars.png", bars)], 4) == 255).all()
    np.testing.assert_array_equal(read_images([small], (5, 4))[0], COLOUR)


def png(width, height):
    """The beginning of a PNG that says it has so many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def broken(tmp_path):
    whole, photo = save(tmp_path, "x.png").read_bytes(), save(tmp_path, "x.jpg", np.repeat(COLOUR, 20, 0)).read_bytes()
    gif = save(tmp_path, "x.gif").read_bytes()
    return {
        "empty.png": (b"", "cannot identify"),
        "text.jpg": (b"hello", "cannot identify"),
        "cut.png": (whole[:-30], ""),
        "cut.jpg": (photo[: len(photo) // 2], "[Tt]runcated"),
        "flipped.png": (whole[:60] + bytes([whole[60] ^ 255]) + whole[61:], ""),
        "checksum.png": (whole[:-14] + bytes([whole[-14] ^ 1]) + whole[-13:], ""),  # after the last pixel
        "gif.png": (gif, "cannot identify"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
        "bomb.png": (png(100_000, 100_000), "pixels"),
        "large.png": (png(10_000, 10_000), "pixels"),
    }


@pytest.mark.parametrize("threads", [1, 3])
def test_a_broken_image_is_named(tmp_path, threads):
    good = save(tmp_path, "good.png")
    for name, (content, message) in broken(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError,
            match=rf"read_images: .*{name} is no JPEG or PNG image, or a broken one \(.*{message}.*\); take it out",
        ):
            read_images([good, tmp_path / name, good], threads=threads)


def test_a_large_image_is_refused_where_warnings_are_ignored_too(tmp_path, monkeypatch):
    path = save(tmp_path, "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 19)  # it has 20: Pillow itself only warns below twice as many
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ValueError, match="x.png .*4x5 pixels, more than"):
        read_images([path])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert len(read_images([path])) == 1
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert len(read_images([path])) == 1


def test_threads_give_the_same(tmp_path):
    paths = [save(tmp_path, f"{i}.png", COLOUR + np.uint8(i)) for i in range(9)]
    np.testing.assert_array_equal(read_images(paths, threads=4), read_images(paths))


def test_other_errors(tmp_path, monkeypatch):
    path = save(tmp_path, "x.png")
    with pytest.raises(FileNotFoundError, match="gone.png"):
        read_images([tmp_path / "gone.png"])
    for arguments, message in (
        ({"paths": []}, "at least one path, got none"),
        ({"channels": 4}, "channels must be 1 or 3, got 4"),
        ({"size": 0}, "size must be an int or a pair .* got 0"),
        ({"size": (3, 4, 5)}, r"size must be .* got \(3, 4, 5\)"),
        ({"size": 2.5}, "size must be .* got 2.5"),
        ({"threads": 0}, "threads must be an int of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=f"read_images: .*{message}"):
            read_images(**{"paths": [path], **arguments})
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(
        ImportError, match=r"read_images needs pillow; install it with pip install 'handgrad\[images\]'"
    ):
        read_images([path])


def test_batches_are_read_as_they_are_due_in_the_thread_of_prefetch(tmp_path):
    for i in range(7):
        save(tmp_path, f"{'ab'[i % 2]}/{i}.png", GREY * 0 + np.uint8(i))
    files = image_files(tmp_path)

    def decode(paths, y):
        return read_images(paths, channels=1), y

    seen = {}
    for x, y in prefetch(batches(files.paths, files.y, 3, seed=0, epoch=0, drop_last=False), transform=decode):
        for image, label in zip(np.asarray(x), np.asarray(y), strict=True):
            seen[int(image[0, 0, 0])] = int(label)
    assert seen == {i: i % 2 for i in range(7)}
    (tmp_path / "b" / "3.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"b/3.png is no JPEG or PNG image"):
        list(prefetch(batches(files.paths, files.y, 3, seed=0, epoch=0, drop_last=False), transform=decode))
