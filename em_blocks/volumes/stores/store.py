"""Access to bytes in local folders, S3, Google storage and HTTP."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import tensorstore as ts

from em_blocks.config import is_url
from em_blocks.errors import EmBlocksError, VolumeError

# Half a minute of retries rides out a busy server. The default of a quarter of an hour would
# keep a user with a wrong endpoint waiting in front of a silent terminal.
_S3_RETRIES = {"max_retries": 7, "initial_delay": "500ms", "max_delay": "8s"}

LEDGER = "em_blocks_blocks.json"
"""What an output says of its own blocks; see `em_blocks.volumes.stores.ledger`."""

_CONTAINER_SUFFIXES = (".zarr", ".n5")


def kvstore_spec(path: str) -> dict:
    """Return the tensorstore key-value store spec of the folder `path` (local path or URL).

    S3 honours ``AWS_ENDPOINT_URL`` and ``AWS_DEFAULT_REGION``, as other AWS clients do;
    credentials come from the environment or the usual files, never from a config.
    """
    url = urlsplit(path)
    if not is_url(path):
        # Not from urlsplit: a local folder may have a # or ? in its name. Files are synced
        # (the default): a block is marked done only when its voxels survive a power cut.
        return {"driver": "file", "path": path.rstrip("/") + "/"}
    key = url.path.strip("/") + "/"
    if url.scheme == "file":
        return {"driver": "file", "path": url.path.rstrip("/") + "/"}
    if url.scheme == "s3":
        return _s3_spec(url.netloc, key)
    if url.scheme == "gs":
        return {"driver": "gcs", "bucket": url.netloc, "path": key}
    if url.scheme in ("http", "https"):
        return {"driver": "http", "base_url": f"{url.scheme}://{url.netloc}", "path": "/" + key}
    raise VolumeError(
        f"The volume path {path!r} has the unknown scheme {url.scheme!r}. Known are local paths, "
        "s3://, gs://, http:// and https://."
    )


def local_path(path: str) -> Path | None:
    """Return the folder of this machine that `path` names; None for one elsewhere."""
    if not is_url(path):
        return Path(path)
    url = urlsplit(path)
    return Path(url.path) if url.scheme == "file" else None


def _s3_spec(bucket: str, key: str) -> dict:
    spec = {
        "driver": "s3",
        "bucket": bucket,
        "path": key,
        "context": {"s3_request_retries": _S3_RETRIES},
    }
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        spec["endpoint"] = endpoint
        spec["aws_region"] = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    if "AWS_ACCESS_KEY_ID" in os.environ:
        # Otherwise a missing ~/.aws is complained about on stderr at every start.
        spec["aws_credentials"] = {"type": "environment"}
    return spec


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of the storage into a `VolumeError` that starts with `what`."""
    try:
        yield
    except EmBlocksError:  # some are of these types too
        raise
    except (ValueError, NotImplementedError, OSError, EOFError) as error:
        raise VolumeError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the readable part of a tensorstore message, without status code and spec dump."""
    text = re.sub(r" \[\w+='.*", "", str(error), flags=re.DOTALL)
    text = text.replace(r"\x00", "/")  # its separator of folders that it could not make
    return re.sub(r"^[A-Z_]+: ", "", text)


def join(path: str, *names: str) -> str:
    """Return `path` and the names below it, for local paths and URLs alike."""
    return "/".join([path.rstrip("/"), *names])


def split_parent(path: str) -> tuple[str, str]:
    """Return the folder that holds `path`, and its last name."""
    parent, _, name = path.rstrip("/").rpartition("/")
    return parent, name


def groups_above(path: str) -> list[str]:
    """Return the folders from the container (``*.zarr``, ``*.n5``) down to the parent of `path`.

    Empty if `path` lies in no container, or is one itself.
    """
    groups: list[str] = []
    while path := split_parent(path)[0]:
        groups.insert(0, path)
        if path.endswith(_CONTAINER_SUFFIXES):
            return groups
    return []


def container(path: str) -> str:
    """Return the ``*.zarr`` or ``*.n5`` folder that holds the array `path`; the array itself without."""
    return (groups_above(path) or [path.rstrip("/")])[0]


def read_bytes(path: str, name: str) -> bytes | None:
    """Read what is stored as `name` in the folder `path`; None if there is nothing."""
    with explained(f"{join(path, name)} cannot be read"):
        result = ts.KvStore.open(kvstore_spec(path)).result().read(name).result()
    return result.value if result.state == "value" else None


def read_json(path: str, name: str) -> dict | None:
    """Return the JSON object stored as `name` in the folder `path`; None if there is none."""
    data = read_bytes(path, name)
    if data is None:
        return None
    try:
        values = json.loads(data)
        if not isinstance(values, dict):
            raise TypeError(f"a {type(values).__name__} instead of an object")
    except (ValueError, TypeError) as error:
        raise VolumeError(
            f"{join(path, name)} is not valid JSON ({error}); the volume's metadata is damaged. "
            "Restore the file, or recreate the volume."
        ) from error
    return values


def write_json(path: str, name: str, values: dict) -> None:
    """Store `values` as `name` in the folder `path`, in one piece or not at all."""
    data = json.dumps(values, indent=2, sort_keys=True).encode()
    with explained(f"{join(path, name)} cannot be written"):
        ts.KvStore.open(kvstore_spec(path)).result().write(name, data).result()


def is_empty(path: str) -> bool:
    """Return whether the folder `path` holds nothing but a ledger, which precedes its array."""
    with explained(f"{path} cannot be listed"):
        found = ts.KvStore.open(kvstore_spec(path)).result().list().result()
    return not set(found) - {LEDGER.encode()}


def delete(path: str, name: str) -> None:
    """Remove `name` from the folder `path`; nothing happens if there is none."""
    with explained(f"{join(path, name)} cannot be deleted"):
        ts.KvStore.open(kvstore_spec(path)).result().delete_range(
            ts.KvStore.KeyRange(name, name + "\x00")
        ).result()


def delete_folder(path: str, *, last: Sequence[str] = ()) -> None:
    """Remove the folder `path` and everything below it; links are removed, not followed.

    Parameters
    ----------
    last : sequence of str
        Names in the folder that are deleted after all others, in this order.
    """
    with explained(f"{path} cannot be deleted"):
        folder, begin = ts.KvStore.open(kvstore_spec(path)).result(), ""
        for name in sorted(last):
            folder.delete_range(ts.KvStore.KeyRange(begin, name)).result()
            begin = name + "\x00"
        folder.delete_range(ts.KvStore.KeyRange(begin, "")).result()
    for name in last:
        delete(path, name)
