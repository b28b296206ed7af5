"""Files fetched by pooch: what came is kept only if its sha256 is the one pinned here, and a broken fetch goes on.

The bytes go into NAME.part beside the file. Where a fetch broke off, the next one asks for the rest alone
(`Range: bytes=N-`); a server that sends the whole all the same (200 in place of 206) starts the part anew. No more than
the file's known size is ever taken. Once whole, pooch holds it against the hash and renames it.
"""

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from handgrad.data.extra import imported

TIMEOUT = 30.0  # seconds without a byte
TRIES = 3  # from one server, each going on where the last one broke off
PIECE = 1 << 16


class Remote(NamedTuple):
    """A published file: its name at the end of the URL and in the folder, its bytes, its sha256."""

    name: str
    size: int
    sha256: str


def fetch(who: str, folder: Path, files: Sequence[Remote], servers: Sequence[str]) -> None:
    """Bring files into a folder, which is made if need be.

    Args:
        who: the loader that asks, for errors.
        folder: where to.
        files: what; one that is there with the right hash is left alone.
        servers: beginnings of URLs, ended by the file's name; each is tried in turn.

    Raises:
        ImportError: pooch is missing; the message names the extra.
        ConnectionError: no server gave the file; the message says why and which files to put where. What came of it is
            kept, and the next call goes on from there.
    """
    pooch = imported("pooch", f"{who} with download=True", "data")
    for at, file in enumerate(files):
        problems = []
        for server in servers:
            try:
                pooch.retrieve(
                    server + file.name, f"sha256:{file.sha256}", file.name, folder, downloader=_resuming(file)
                )
                break
            except (OSError, HTTPException, ValueError) as error:
                problems.append(f"{server}: {error or type(error).__name__}")
        else:
            raise ConnectionError(
                f"{who}: could not fetch {file.name} ({'; '.join(problems)}); try again, which goes on where it broke "
                f"off, or put {', '.join(file.name for file in files[at:])} from {servers[0]} into {folder} yourself"
            )


def _resuming(file: Remote) -> Any:
    """A downloader for pooch, (url, path, pooch), that keeps and continues a part."""

    def download(url: str, to: str, pooch: Any) -> None:
        part = Path(to).with_name(f"{file.name}.part")
        for left in reversed(range(TRIES)):
            try:
                _continue(url, part, file.size)
                break
            except (OSError, HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError) or not left:
                    raise
        os.replace(part, to)

    return download


def _continue(url: str, part: Path, size: int) -> None:
    """Ask for what the part still lacks, and add it."""
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    if have == size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the server's file ends before the part does, so the part is of another
            part.unlink()
        error.close()
        raise
    with response:
        goes_on = response.status == 206
        if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise ConnectionError(f"asked for bytes from {have} on, got {response.headers.get('Content-Range')!r}")
        with open(part, "ab" if goes_on else "wb") as out:
            # read1 gives what has come: read would wait for a whole piece, and lose it all when the connection stalls
            while (lacks := size - out.tell()) and (piece := response.read1(min(PIECE, lacks))):
                out.write(piece)
    if lacks:
        raise ConnectionError(f"the connection ended after {size - lacks:,} of {size:,} bytes")
