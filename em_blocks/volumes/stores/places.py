"""Comparison of places: two paths or URLs can be spellings of one place.

A symlink, ``..``, a bind mount, ``file://``, a trailing slash and the ways to write an address of an
object store are spellings; the place is what they lead to.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from em_blocks.config import is_url, without_file_scheme

_FILES = (".zarray", "zarr.json", "attributes.json", "info")
"""Files of which every array has its own: two folders that share one are one array."""

_AWS = "s3.amazonaws.com"
_AWS_HOST = re.compile(
    r"^(?:(?P<bucket>.+)\.)?s3(?:[.-](?:accelerate|dualstack|[a-z]{2}(?:-[a-z]+)+-\d))*"
    r"\.amazonaws\.com(?:\.cn)?$"
)
_GOOGLE = "storage.googleapis.com"
_GOOGLE_HOST = re.compile(r"^(?:(?P<bucket>.+)\.)?storage\.(?:googleapis|cloud\.google)\.com$")
_LOOPBACK = ("127.0.0.1", "::1")
_DEFAULT_PORTS = {"http": 80, "https": 443}

_MOST_ENTRIES = 10_000
"""Entries of a folder in which links are looked for: a flat array has millions of chunks, all files."""


def canonical(path: str | Path) -> str:
    """Return the one spelling of a place, which need not exist.

    Parameters
    ----------
    path : str or Path
        Local path, absolute or from the working directory, or URL.

    Returns
    -------
    str
        Absolute, with symlinks of all folders that exist followed; or ``https://HOST/BUCKET/KEY`` of
        whatever object store, with the endpoint that ``AWS_ENDPOINT_URL`` gives to ``s3://``.
    """
    path = without_file_scheme(str(path))
    if not is_url(path):
        return os.path.realpath(path)
    url = urlsplit(path)
    if url.scheme == "s3":
        endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL") or f"https://{_AWS}")
        return _address(endpoint, posixpath.join(endpoint.path, url.netloc, url.path.lstrip("/")))
    if url.scheme == "gs":
        return _address(urlsplit(f"https://{_GOOGLE}"), f"{url.netloc}{url.path}")
    if url.scheme in _DEFAULT_PORTS:
        return _address(url, unquote(url.path))
    return path.rstrip("/")


def _address(endpoint: SplitResult, key: str) -> str:
    """Return ``https://HOST/BUCKET/KEY``: the bucket is always in the path, unlike in some hosts."""
    host = (endpoint.hostname or "").rstrip(".")
    for known, pattern in ((_AWS, _AWS_HOST), (_GOOGLE, _GOOGLE_HOST)):
        if found := pattern.match(host):
            host, key = known, posixpath.join(found["bucket"] or "", key.lstrip("/"))
    if bucket := _virtual_bucket(host, endpoint.port):
        host, key = host.removeprefix(f"{bucket}."), posixpath.join(bucket, key.lstrip("/"))
    host = "localhost" if host in _LOOPBACK else host
    port = endpoint.port
    end = "" if port in (None, _DEFAULT_PORTS.get(endpoint.scheme)) else f":{port}"
    # http and https of one host are one store.
    return f"https://{host}{end}{posixpath.normpath('/' + key.strip('/'))}".rstrip("/")


def _virtual_bucket(host: str, port: int | None) -> str | None:
    """Return the bucket in ``BUCKET.HOST`` of the endpoint in ``AWS_ENDPOINT_URL``, if it is one."""
    own = urlsplit(os.environ.get("AWS_ENDPOINT_URL") or "")
    if own.hostname and own.port == port and host.endswith(f".{own.hostname}"):
        return host.removesuffix(f".{own.hostname}")
    return None


def same_place(a: str | Path, b: str | Path) -> bool:
    """Return whether two spellings lead to one file, folder or array; neither need exist."""
    one, other = canonical(a), canonical(b)
    return one == other or bool(_identities(one) & _identities(other))


def within(inner: str | Path, outer: str | Path) -> bool:
    """Return whether `inner` is `outer` or lies in it, by whatever way it is reached.

    Targets of symlinks in the folder `outer` (of an array whose chunks are elsewhere) count as in it.
    """
    inner = canonical(inner)
    for place in (canonical(outer), *_linked(canonical(outer))):
        own = _identities(place)
        if any(above == place or own & _identities(above) for above in _upwards(inner)):
            return True
    return False


def overlap(a: str | Path, b: str | Path) -> bool:
    """Return whether two places are one, or one lies in the other."""
    return within(a, b) or within(b, a)


def _upwards(place: str) -> Iterator[str]:
    """Yield a place and all folders above it."""
    if not is_url(place):
        yield from map(str, (Path(place), *Path(place).parents))
        return
    while len(place) > len("https://"):
        yield place
        place = place[: place.rfind("/")]


def _identities(place: str) -> set[tuple]:
    """Return the device and inode of a place and of its metadata files, so that hard links are found."""
    found = set()
    for name in () if is_url(place) else ("", *_FILES):
        try:
            stat = os.stat(os.path.join(place, name) if name else place)
        except OSError:  # there is none, or none that could be opened
            continue
        found.add((stat.st_dev, stat.st_ino))
    return found


def _linked(place: str) -> set[str]:
    """Return the folders that links in the folder `place` lead to."""
    if is_url(place) or not os.path.isdir(place):
        return set()
    with os.scandir(place) as entries:
        links = [e.path for _, e in zip(range(_MOST_ENTRIES), entries, strict=False) if e.is_symlink()]
    return {os.path.realpath(link) for link in links if os.path.isdir(link)}
