"""Downloads from a server on this machine that truncates, stalls, corrupts, refuses, or keeps to the book."""

import gzip
import hashlib
import http.server
import struct
import sys
import threading

import numpy as np
import pytest

from cifar_files import archive, pickled, rows
from handgrad.cli import main
from handgrad.data import cifar, download, load_cifar10, load_cifar100, load_fashion_mnist, load_mnist, mnist
from handgrad.data.download import Remote, fetch

CONTENT = np.random.default_rng(0).bytes(200_000)
FILE = Remote("file.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by name, each request as the next entry of `moods` says, then as the book says."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.moods, self.ranges, self.supports_range = {"file.bin": CONTENT}, [], [], True
        self.over = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        asked, server = self.headers.get("Range"), self.server
        if self.path.startswith("/old/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/old"))
            return self.end_headers()
        data = server.files.get(self.path[1:])
        server.ranges.append(asked)
        mood = server.moods.pop(0) if server.moods else "well"
        if data is None or mood == "gone":
            return self.send_error(404)
        if mood == "corrupt":
            data = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.supports_range else 0
        if start >= len(data):
            return self.send_error(416)
        self.send_response(206 if asked and server.supports_range else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if asked and server.supports_range:
            self.send_header("Content-Range", f"bytes {start + (mood == 'shifted')}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if mood in ("truncate", "stall"):
            self.wfile.write(data[start : start + 50_000])
            self.wfile.flush()
            if mood == "stall":
                server.over.wait(30)
        else:
            self.wfile.write(data[start:])


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


def get(server, folder, files=(FILE,), servers=None):
    fetch("load_test", folder, files, servers or (server.url,))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_alone_into_a_new_folder(server, tmp_path):
    get(server, tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path / "new" / "folder") == ["file.bin"] and server.ranges == [None]
    get(server, tmp_path / "new" / "folder")
    assert server.ranges == [None]  # it is there: nothing was asked for


@pytest.mark.parametrize("mood", ["truncate", "stall"])
def test_a_broken_connection_goes_on_with_the_rest(server, tmp_path, mood):
    server.moods = [mood, mood]
    get(server, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=50000-", "bytes=100000-"]


@pytest.mark.parametrize("mood", ["truncate", "stall"])
def test_after_three_tries_the_part_is_kept_for_the_next_call(server, tmp_path, mood):
    server.moods = [mood] * 3
    with pytest.raises(
        ConnectionError, match=r"load_test: could not fetch file.bin \(http.*\); try again, .* or put file"
    ):
        get(server, tmp_path)
    assert names(tmp_path) == ["file.bin.part"] and (tmp_path / "file.bin.part").read_bytes() == CONTENT[:150_000]
    del server.ranges[:]
    get(server, tmp_path)
    assert server.ranges == ["bytes=150000-"] and names(tmp_path) == ["file.bin"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.moods, server.supports_range = ["truncate"], False
    get(server, tmp_path)
    assert server.ranges == [None, "bytes=50000-"] and (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_range_is_not_glued_on(server, tmp_path):
    server.moods = ["truncate", "shifted", "well"]
    get(server, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=50000-", "bytes=50000-"]


def test_a_part_goes_on_where_the_server_has_moved(server, tmp_path):
    server.moods = ["truncate"]
    get(server, tmp_path, servers=(f"{server.url}old/",))
    assert server.ranges == [None, "bytes=50000-"] and (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_corrupted_file_is_not_kept(server, tmp_path):
    server.moods = ["corrupt"]
    with pytest.raises(ConnectionError, match="could not fetch file.bin .*hash of downloaded file .* does not match"):
        get(server, tmp_path)
    assert names(tmp_path) == []
    get(server, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"other" * 100, CONTENT + b"more", b"other" * 40_000], ids=["short", "long", "full"])
def test_a_part_of_another_file_is_found_out(server, tmp_path, part):
    (tmp_path / "file.bin.part").write_bytes(part)
    if len(part) <= len(CONTENT):
        with pytest.raises(ConnectionError, match="does not match"):
            get(server, tmp_path)
    get(server, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and names(tmp_path) == ["file.bin"]


def test_a_server_whose_file_is_shorter_than_the_part(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:150_000])
    server.files["file.bin"] = CONTENT[:100_000]
    with pytest.raises(ConnectionError, match="HTTP Error 416"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_a_longer_file_is_not_taken_beyond_its_size(server, tmp_path):
    server.files["file.bin"] = CONTENT + bytes(1 << 20)
    get(server, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_the_next_server_is_asked(server, tmp_path):
    server.moods = ["gone"]
    get(server, tmp_path, servers=(f"{server.url}", f"{server.url}"))
    assert len(server.ranges) == 2 and (tmp_path / "file.bin").read_bytes() == CONTENT


def test_offline_it_says_what_to_put_where(tmp_path):
    with Server() as closed:
        address = closed.url
    others = [FILE, Remote("other.bin", 3, "00")]
    with pytest.raises(ConnectionError) as error:
        fetch("load_test", tmp_path, others, (address,))
    assert f"or put file.bin, other.bin from {address} into {tmp_path} yourself" in str(error.value)
    assert "refused" in str(error.value)


def test_without_pooch_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pooch", None)
    for load in (load_mnist, load_fashion_mnist, load_cifar10, load_cifar100):
        with pytest.raises(ImportError, match=rf"{load.__name__} with download=True needs pooch; .*'handgrad\[data\]'"):
            load(tmp_path, download=True)
    assert main(["train", "--data", "cifar10", "--data-dir", str(tmp_path), "--download"]) == 2
    assert "handgrad train: load_cifar10 with download=True needs pooch; install it" in capsys.readouterr().err


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def serve(server, monkeypatch, files):
    server.files = files
    return {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}


@pytest.mark.parametrize(("load", "which"), [(load_mnist, "MNIST"), (load_fashion_mnist, "FASHION")])
def test_mnist_is_fetched_where_it_is_missing(server, tmp_path, monkeypatch, load, which):
    files = {}
    for part, n in (("train", 5), ("t10k", 3)):
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(idx(np.full((n, 28, 28), n, np.uint8)))
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.full(n, n, np.uint8)))
    pinned = {name.rsplit("-", 2)[0]: about for name, about in serve(server, monkeypatch, files).items()}
    monkeypatch.setattr(mnist, which, mnist.Published((server.url,), pinned))
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8)))  # the user's own, not to be replaced
    data = load(tmp_path, download=True)
    assert len(server.ranges) == 3 and data.train_y.tolist() == [0] * 5 and data.test_y.tolist() == [3] * 3
    assert (data.train_x == 5).all()
    load(tmp_path, download=True)
    assert len(server.ranges) == 3
    if load is load_mnist:
        assert len(load(tmp_path / "tests", test_only=True, download=True).train_x) == 2
        assert names(tmp_path / "tests") == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]


def test_cifar_is_fetched_where_it_is_missing(server, tmp_path, monkeypatch):
    ten = [*(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)), "cifar-10-batches-py/test_batch"]
    one = pickled(rows(1), fine_labels=[7], coarse_labels=[1])
    hundred = {f"cifar-100-python/{name}": one for name in ("train", "test")}
    files = {
        cifar.REMOTE10.name: archive({name: pickled(rows(1), labels=[3]) for name in ten}),
        cifar.REMOTE100.name: archive(hundred),
    }
    pinned = serve(server, monkeypatch, files)
    monkeypatch.setattr(cifar, "SERVERS", (server.url,))
    for name, remote in (("REMOTE10", cifar.REMOTE10), ("REMOTE100", cifar.REMOTE100)):
        monkeypatch.setattr(cifar, name, Remote(remote.name, *pinned[remote.name]))
    for _ in range(2):
        assert load_cifar10(tmp_path / "new", download=True).train_y.tolist() == [3] * 5
        assert load_cifar100(tmp_path / "new", download=True).test_y.tolist() == [7]
    assert len(server.ranges) == 2


def test_what_is_pinned_is_what_lies_here(data_dir):
    """The published MNIST test files, where they are at hand; copies of Fashion-MNIST are often zipped anew."""
    for name in ("t10k-images", "t10k-labels"):
        (path,) = (data_dir / "mnist").glob(f"{name}*.gz")
        data = path.read_bytes()
        assert mnist.MNIST.files[name] == (len(data), hashlib.sha256(data).hexdigest())
