"""Tiny image sets in place of the real ones: found, downloaded, unpacked, and refused when a byte is wrong."""

import gzip
import hashlib
import http.server
import os
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torchvision import datasets

from course_lib import data
from course_lib.data import DamagedArchive, DataUnavailable, archives

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def tiny_files():
    """Unpacked files of a set with 6 training and 3 test pictures, in the format of the real ones."""
    content = {}
    for part, n in (("train", 6), ("t10k", 3)):
        pixels = bytes((i * 37 + n) % 256 for i in range(n * 784))
        content[f"{part}-images-idx3-ubyte"] = struct.pack(">iiii", 2051, n, 28, 28) + pixels
        content[f"{part}-labels-idx1-ubyte"] = struct.pack(">ii", 2049, n) + bytes(range(n))
    return content


@pytest.fixture
def tiny(monkeypatch):
    """Make the tiny set pass for Fashion-MNIST, without any network; gives its archives as {name: bytes}."""
    unpacked = tiny_files()
    packed = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in unpacked.items()}
    monkeypatch.setattr(datasets.FashionMNIST, "resources", [(name, md5(c)) for name, c in packed.items()])
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    source = archives.Source("Fashion-MNIST", "FashionMNIST", {name: md5(c) for name, c in unpacked.items()})
    monkeypatch.setitem(archives.SOURCES, "fashion_mnist", source)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(archives, "TIMEOUT", 2.0)
    return packed


@pytest.fixture
def raw(tiny, tmp_path):
    """A data folder that holds the tiny archives; gives the folder they lie in."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in tiny.items():
        (folder / name).write_bytes(content)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_archives_in_place_need_no_network(raw, tmp_path):
    train, test = data.fashion_mnist(root=tmp_path), data.fashion_mnist("test", root=str(tmp_path))
    assert (len(train), len(test)) == (6, 3)
    assert train.labels.tolist() == list(range(6))
    expected = torch.tensor(list(tiny_files()["train-images-idx3-ubyte"][16:]), dtype=torch.uint8).reshape(6, 1, 28, 28)
    assert torch.equal(train.pixels[..., 2:-2, 2:-2], expected)
    assert torch.equal(data.fashion_mnist(size=28, root=tmp_path).pixels, expected)
    assert names(raw) == sorted([*FILES, *(f"{name}.gz" for name in FILES)])


def test_the_default_root_is_the_data_root(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    assert len(data.fashion_mnist()) == 6


def test_unpacked_files_alone_will_do(raw, tmp_path):
    data.fashion_mnist(root=tmp_path)
    for name in FILES:
        (raw / f"{name}.gz").unlink()
    assert len(data.fashion_mnist(root=tmp_path)) == 6


@pytest.mark.parametrize("damage", [lambda c: c[:-10], lambda c: c[:40] + b"\0" + c[41:], lambda c: b""])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
def test_a_damaged_archive_is_refused_and_left_alone(raw, tmp_path, tiny, damage, name):
    damaged = damage(tiny[name])
    (raw / name).write_bytes(damaged)
    with pytest.raises(DamagedArchive) as caught:
        data.fashion_mnist(root=tmp_path)
    for word in (str(raw / name), md5(tiny[name]), md5(damaged), "delete it and run again"):
        assert word in str(caught.value)
    assert (raw / name).read_bytes() == damaged
    assert name.removesuffix(".gz") not in names(raw)
    with pytest.raises(DamagedArchive):  # a lesson does not go on with shapes over this
        data.image_set(root=tmp_path)
    (raw / name).write_bytes(tiny[name])
    assert len(data.fashion_mnist(root=tmp_path)) == 6


@pytest.mark.parametrize("name", FILES[:2])
def test_a_damaged_unpacked_file_is_refused_and_left_alone(raw, tmp_path, name):
    data.fashion_mnist(root=tmp_path)
    altered = bytearray((raw / name).read_bytes())
    altered[-1] ^= 1
    (raw / name).write_bytes(altered)
    with pytest.raises(DamagedArchive, match=name) as caught:
        data.fashion_mnist(root=tmp_path)
    assert md5(altered) in str(caught.value)
    assert (raw / name).read_bytes() == altered
    (raw / name).unlink()  # the remedy
    assert len(data.fashion_mnist(root=tmp_path)) == 6


def test_torchvisions_old_processed_files_are_not_read(raw, tmp_path):
    processed = raw.parent / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.long)), processed / name)
    assert len(data.fashion_mnist(root=tmp_path)) == 6


def test_no_copy_and_no_network(tiny, tmp_path, capfd):
    with pytest.raises(DataUnavailable) as caught:
        data.fashion_mnist(root=tmp_path)
    message = str(caught.value)
    assert isinstance(caught.value, OSError)
    assert "\n" not in message
    for word in ("Fashion-MNIST", str(tmp_path / "FashionMNIST" / "raw"), "run again", ".gz", "COURSE_DATA"):
        assert word in message
    assert names(tmp_path / "FashionMNIST" / "raw") == []
    assert capfd.readouterr() == ("", "")


def test_a_lesson_goes_on_with_shapes(tiny, tmp_path, capfd):
    instead = data.image_set(split="test", root=tmp_path)
    out, err = capfd.readouterr()
    assert instead.name == "shapes"
    assert out.count("\n") == 1
    assert out.startswith("Fashion-MNIST is not here and could not be downloaded: this lesson goes on with shapes")
    assert err == ""


def test_a_lesson_gets_the_set_when_it_is_there(raw, tmp_path, capfd):
    assert data.image_set("fashion_mnist", root=tmp_path).name == "fashion_mnist"
    assert capfd.readouterr() == ("", "")


def no_writing(monkeypatch, below):
    """Make temporary folders below `below` fail, as they do on a read-only disk."""
    real = archives.tempfile.TemporaryDirectory

    def refuse(*args, **options):
        if str(options.get("dir", "")).startswith(str(below)):
            raise PermissionError(13, "Permission denied")
        return real(*args, **options)

    monkeypatch.setattr(archives.tempfile, "TemporaryDirectory", refuse)


def test_a_read_only_folder(raw, tmp_path, monkeypatch):
    before = names(raw)
    no_writing(monkeypatch, tmp_path)
    assert len(data.fashion_mnist(root=tmp_path)) == 6  # unpacked elsewhere
    assert names(raw) == before


def test_a_read_only_folder_without_the_set(tiny, tmp_path, monkeypatch):
    no_writing(monkeypatch, tmp_path)
    with pytest.raises(DataUnavailable, match="nothing can be written there") as caught:
        data.fashion_mnist(root=tmp_path)
    assert "COURSE_DATA" in str(caught.value)


def test_a_data_root_that_is_a_file(tiny, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataUnavailable, match="nothing can be written there"):
        data.fashion_mnist(root=tmp_path / "file")


def test_many_unpack_at_the_same_time(raw, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        sets = list(pool.map(lambda _: data.fashion_mnist(root=tmp_path), range(16)))
    assert all(torch.equal(s.pixels, sets[0].pixels) for s in sets)
    assert names(raw) == sorted([*FILES[:2], *(f"{name}.gz" for name in FILES)])


# --- downloads, from a server on this machine --------------------------------------------------------------------


@pytest.fixture
def serve(tiny, monkeypatch):
    """Start a server that answers with `answer(handler, content)`; gives the list of the paths asked for."""
    servers = []

    def start(answer):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                answer(self, tiny.get(self.path.lstrip("/"), b""))

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        return asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def send(handler, content, length=None):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)


def test_what_is_missing_is_downloaded(serve, tiny, tmp_path, capfd):
    asked = serve(send)
    assert len(data.fashion_mnist(root=tmp_path)) == 6
    raw = tmp_path / "FashionMNIST" / "raw"
    assert names(raw) == sorted([*FILES[:2], *(f"{name}.gz" for name in FILES[:2])])
    assert (raw / "train-images-idx3-ubyte.gz").read_bytes() == tiny["train-images-idx3-ubyte.gz"]
    assert {path.lstrip("/") for path in asked} == {f"{name}.gz" for name in FILES[:2]}
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler, content: send(handler, content[:50], len(content)),  # the line breaks
        lambda handler, content: send(handler, b"<html>Log in to this network</html>"),
        lambda handler, content: handler.send_error(404),
        lambda handler, content: handler.wfile.write(b"what?\r\n\r\n"),
    ],
    ids=["broken", "portal", "missing", "nonsense"],
)
def test_a_failed_download_leaves_nothing_behind(serve, tmp_path, answer):
    serve(answer)
    with pytest.raises(DataUnavailable, match="could not be downloaded") as caught:
        data.fashion_mnist(root=tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path / "FashionMNIST" / "raw") == []


def test_a_silent_server_is_given_up_and_the_timeout_put_back(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "TIMEOUT", 0.3)
    serve(lambda handler, content: time.sleep(3))
    before = socket.getdefaulttimeout()
    with pytest.raises(DataUnavailable, match="timed out"):
        data.fashion_mnist(root=tmp_path)
    assert socket.getdefaulttimeout() == before


def test_the_next_mirror_is_tried(serve, tmp_path, monkeypatch):
    serve(send)
    good = datasets.FashionMNIST.mirrors
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/", *good])
    assert len(data.fashion_mnist("test", root=tmp_path)) == 3


def test_an_interrupted_download_leaves_nothing_behind(serve, tmp_path, monkeypatch):
    serve(send)

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        data.fashion_mnist(root=tmp_path)
    assert names(tmp_path / "FashionMNIST" / "raw") == []
    assert socket.getdefaulttimeout() is None


def test_an_archive_that_passes_but_cannot_be_unpacked(raw, tmp_path, monkeypatch):
    path = raw / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"no gzip at all")
    monkeypatch.setattr(
        datasets.FashionMNIST, "resources", [(name, md5((raw / name).read_bytes())) for name in names(raw)]
    )
    with pytest.raises(DamagedArchive, match="cannot be unpacked"):
        data.fashion_mnist(root=tmp_path)
