"""Small files in the forms that CIFAR is published in."""

import gzip
import io
import pickle
import tarfile
from typing import Any

import numpy as np


def rows(n, seed=0):
    """Pixels (n, 3072), as they lie in the files."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), np.uint8)


def images(pixels):
    """What a reader must make of rows: red, green, blue, each 32 rows of 32."""
    red, green, blue = (pixels[:, i * 1024 : (i + 1) * 1024].reshape(-1, 32, 32) for i in range(3))
    return np.stack([red, green, blue], -1)


def binary(pixels, *labels):
    """Records of labels and pixels."""
    return np.concatenate([*(np.array(column, np.uint8)[:, None] for column in labels), pixels], 1).tobytes()


def pickled(pixels, protocol: int = 2, **labels: Any):
    """A dict as Python 3 pickles it."""
    return pickle.dumps({"data": pixels, "filenames": ["a.png"] * len(pixels), **labels}, protocol)


def of_python_2(pixels, labels, key=b"labels"):
    """A dict as Python 2's cPickle writes it at protocol 2: strings are bytes, NumPy's names are the old ones."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def number(value):
        return b"K" + bytes([value]) if value < 256 else b"M" + value.to_bytes(2, "little")

    raw = pixels.tobytes()
    array = b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85" + text(b"b") + b"\x87Rq\x07",
            b"(K\x01" + number(len(pixels)) + number(3072) + b"\x86",
            b"cnumpy\ndtype\nq\x08" + text(b"u1") + b"K\x00K\x01\x87Rq\x09(K\x03" + text(b"|"),
            b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            b"T" + len(raw).to_bytes(4, "little") + raw + b"tb",
        ]
    )
    values = b"]q\x03(" + b"".join(map(number, labels)) + b"e"
    names = b"]q\x04(" + b"".join(text(b"a.png") for _ in labels) + b"e"
    parts = [text(b"data") + array, text(key) + values, text(b"filenames") + names, text(b"batch_label") + text(b"one")]
    return b"\x80\x02}q\x01(" + b"".join(parts) + b"u."


def archive(members, kind=tarfile.GNU_FORMAT):
    """A tar.gz of files by name, behind the entry of their folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(out.getvalue(), 1, mtime=0)
