"""JPEG and PNG images in class folders, read all at once or batch by batch.

    folder/cat/001.jpg   folder/cat/002.png   folder/dog/a.jpeg      classes ("cat", "dog"), labels 0, 0, 1

Classes and files are in the order of their names, by code point, on every machine. Names that begin with a dot are
passed over, links are followed, and anything else that is no JPEG or PNG by its ending is an error.

Every image is turned upright by its EXIF orientation and then comes as uint8 in one or three channels: a palette is
looked up, what is transparent is laid on white, of 16 bits the upper 8 are kept. Only Pillow's JPEG and PNG decoders
run, whatever a file's name, and none on more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
"""

import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handgrad.data.extra import imported

ENDINGS = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG")
DEEP = ("I;16", "I;16B", "I;16L", "I")  # modes of 16 bits


class Images(NamedTuple):
    """Labelled images.

    Attributes:
        x: images (N, H, W, C), uint8, 0 to 255.
        y: their classes (N,), int32, 0 to len(classes) - 1.
        classes: the classes' names.

    Example:
        >>> images = Images(np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1], np.int32), ("cat", "dog"))
        >>> x, y, classes = images
        >>> x.shape, [classes[label] for label in y]
        ((2, 32, 32, 3), ['cat', 'dog'])
    """

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]


class ImageFiles(NamedTuple):
    """Labelled images that are still on the disk.

    Attributes:
        paths: their files (N,), str, for `read_images`.
        y: their classes (N,), int32, 0 to len(classes) - 1.
        classes: the classes' names.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for file in ("cat/1.png", "cat/2.png", "dog/1.png"):
        ...     (folder / file).parent.mkdir(exist_ok=True)
        ...     (folder / file).touch()
        >>> paths, y, classes = image_files(folder)
        >>> [Path(path).name for path in paths], y, classes
        (['1.png', '2.png', '1.png'], array([0, 0, 1], dtype=int32), ('cat', 'dog'))
    """

    paths: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]


def image_folder(
    folder: str | os.PathLike[str],
    size: int | tuple[int, int] | None = None,
    *,
    channels: int = 3,
    classes: Sequence[str] | None = None,
) -> Images:
    """All images of a folder that holds a folder for each class: `read_images` of `image_files`.

    For more images than fit into memory, read each batch as it is due, in the thread of `prefetch`:

        files = image_files("photos")
        decode = lambda paths, y: (normalise(read_images(paths, 64)), y)
        for x, y in prefetch(batches(files.paths, files.y, 128, seed=0, epoch=0), transform=decode): ...

    Args:
        folder: holds the class folders.
        size: as in `read_images`.
        channels: as in `read_images`.
        classes: as in `image_files`.

    Returns:
        The images, their labels, the classes' names.

    Raises:
        ImportError: as for `read_images`.
        FileNotFoundError: as for `image_files`.
        ValueError: as for `image_files` and `read_images`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, grey in (("dark", 10), ("light", 250)):
        ...     (folder / name).mkdir()
        ...     Image.new("L", (4, 3), grey).save(folder / name / "1.png")
        >>> x, y, classes = image_folder(folder, channels=1)
        >>> x.shape, y, classes, x[:, 0, 0, 0]
        ((2, 3, 4, 1), array([0, 1], dtype=int32), ('dark', 'light'), array([ 10, 250], dtype=uint8))
    """
    files = image_files(folder, classes=classes)
    return Images(read_images(files.paths, size, channels=channels), files.y, files.classes)


def image_files(folder: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> ImageFiles:
    """The files of the images in class folders, with their labels; no image is opened.

    Args:
        folder: holds a folder for each class.
        classes: the names that the class folders must have, such as those of the training images, and their order; by
            default the names that are there.

    Returns:
        Files in the order of classes and names, labels, names of the classes.

    Raises:
        FileNotFoundError: no such folder, or a link that leads nowhere.
        ValueError: no class folder, one without images, other class folders than `classes`, or something in them that
            is no JPEG or PNG file by its ending. Folder and file are named.

    Example:
        >>> image_files("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: image_files: there is no folder no/such/folder; name one that holds a folder for each class
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"image_files: there is no folder {folder}; name one that holds a folder for each class"
        )
    beside = [path for path in _visible(folder) if not path.is_dir()]
    for path in beside:
        if path.is_symlink() and not path.exists():
            raise FileNotFoundError(f"image_files: {path} is a link that leads nowhere; mend it or take it out")
        if path.suffix.lower() in ENDINGS:
            raise ValueError(
                f"image_files: {path} lies beside the class folders; put each class into a folder of its own"
            )
    names = tuple(path.name for path in _visible(folder) if path.is_dir())
    if not names:
        raise ValueError(f"image_files: {folder} holds no class folder; put each class's images into a folder in it")
    if classes is not None and sorted(classes) != sorted(names):
        odd = sorted(set(classes) ^ set(names)) or "names that come twice"
        raise ValueError(f"image_files: {folder} must hold the class folders {sorted(classes)}; it differs in {odd}")
    names = names if classes is None else tuple(classes)
    found = [_images_in(folder / name) for name in names]
    paths = np.array([path for paths in found for path in paths], object)
    return ImageFiles(paths, np.repeat(np.arange(len(names), dtype=np.int32), [len(paths) for paths in found]), names)


def read_images(
    paths: Iterable[str | os.PathLike[str]],
    size: int | tuple[int, int] | None = None,
    *,
    channels: int = 3,
    threads: int = 1,
) -> np.ndarray:
    """Images from JPEG and PNG files, upright, of one size.

    Args:
        paths: their files, at least one.
        size: height and width, or an int for both: each image is scaled, its sides in proportion, until it covers this
            size, and what hangs over is cut off at both sides alike. Without it the images must be of one size.
        channels: 3 for colour, 1 for grey.
        threads: how many files to decode at once; Pillow's decoders let other threads run.

    Returns:
        The images (N, H, W, channels), uint8, in the order of the paths.

    Raises:
        ImportError: Pillow is missing; the message names the extra.
        FileNotFoundError: no such file.
        ValueError: no paths, a bad size or number of channels or threads, a file that is broken, cut off, no JPEG or
            PNG, or of more pixels than `PIL.Image.MAX_IMAGE_PIXELS`; without a size, images of two sizes. The first
            such file is named.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = Path(tempfile.mkdtemp(), "red.png")
        >>> Image.new("RGB", (40, 20), (255, 0, 0)).save(path)
        >>> images = read_images([path], (8, 8))
        >>> images.shape, images[0, 0, 0]
        ((1, 8, 8, 3), array([255,   0,   0], dtype=uint8))
    """
    imported("PIL.Image", "read_images", "images")
    paths, shape = list(paths), _shape(size)
    if not paths:
        raise ValueError("read_images: there must be at least one path, got none")
    if channels not in (1, 3):
        raise ValueError(f"read_images: channels must be 1 or 3, got {channels!r}")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"read_images: threads must be an int of at least 1, got {threads!r}")
    first = _decoded(paths[0], shape, channels)
    images = np.empty((len(paths), *first.shape), np.uint8)

    def read(i: int) -> None:
        image = first if i == 0 else _decoded(paths[i], shape, channels)
        if image.shape != first.shape:
            raise ValueError(
                f"read_images: {paths[i]} is {image.shape[0]}x{image.shape[1]}, but {paths[0]} is "
                f"{first.shape[0]}x{first.shape[1]}; give a size to bring all to"
            )
        images[i] = image

    if threads == 1:
        for i in range(len(paths)):
            read(i)
    else:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(read, range(len(paths))):
                pass
    return images


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def _images_in(folder: Path) -> list[str]:
    paths = _visible(folder)
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise FileNotFoundError(f"image_files: {path} is a link that leads nowhere; mend it or take it out")
        if path.suffix.lower() not in ENDINGS or not path.is_file():
            raise ValueError(f"image_files: {path} must be a file that ends in {', '.join(ENDINGS)}; take it out")
    if not paths:
        raise ValueError(f"image_files: the class folder {folder} holds no image; fill it or take it out")
    return [str(path) for path in paths]


def _decoded(path: Any, shape: tuple[int, int] | None, channels: int) -> np.ndarray:
    """An image (H, W, channels) uint8, or an error that names the file."""
    from PIL import Image, ImageOps

    try:
        data = Path(path).read_bytes()
        with _opened(data) as unread:
            if unread.format == "PNG":  # decoding stops at the last pixel, before a checksum may have come
                unread.verify()
        with _opened(data) as opened:
            image = _plain(ImageOps.exif_transpose(opened), "L" if channels == 1 else "RGB")
            if shape is not None:
                image = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BILINEAR)
            return np.asarray(image).reshape(image.height, image.width, channels)
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # whatever broken bytes do to Pillow, its warnings among it
        raise ValueError(
            f"read_images: {path} is no JPEG or PNG image, or a broken one ({error}); take it out"
        ) from error


def _opened(data: bytes) -> Any:
    """An image whose header alone has been read, and is not too large."""
    from PIL import Image

    image, most = Image.open(io.BytesIO(data), formats=FORMATS), Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise ValueError(f"it has {image.width}x{image.height} pixels, more than PIL.Image.MAX_IMAGE_PIXELS")
    return image


def _plain(image: Any, mode: str) -> Any:
    """The image in 8 bits a channel, with nothing transparent."""
    from PIL import Image

    if image.mode in DEEP:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _shape(size: Any) -> tuple[int, int] | None:
    sizes = size if isinstance(size, tuple | list) else (size, size)
    if size is not None and not (
        len(sizes) == 2
        and all(isinstance(one, int | np.integer) and not isinstance(one, bool) and one > 0 for one in sizes)
    ):
        raise ValueError(f"read_images: size must be an int or a pair (height, width), at least 1, got {size!r}")
    return None if size is None else (int(sizes[0]), int(sizes[1]))
