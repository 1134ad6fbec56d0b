"""Where bytes live: local folders, S3, Google storage, HTTP."""

from __future__ import annotations

import json
import os
from urllib.parse import urlsplit

import tensorstore as ts

from em_blocks.errors import VolumeError


def kvstore_spec(path: str) -> dict:
    """The tensorstore key-value store spec of the folder `path` (local path or URL).

    S3 honours ``AWS_ENDPOINT_URL`` and ``AWS_DEFAULT_REGION``, as other AWS clients do;
    credentials come from the environment or the usual files, never from a config.
    """
    url = urlsplit(path)
    if url.scheme in ("", "file"):
        return {"driver": "file", "path": (url.path if url.scheme else path).rstrip("/") + "/"}
    key = url.path.strip("/") + "/"
    if url.scheme == "s3":
        spec = {"driver": "s3", "bucket": url.netloc, "path": key}
        if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
            spec["endpoint"] = endpoint
            spec["aws_region"] = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        return spec
    if url.scheme == "gs":
        return {"driver": "gcs", "bucket": url.netloc, "path": key}
    if url.scheme in ("http", "https"):
        return {"driver": "http", "base_url": f"{url.scheme}://{url.netloc}", "path": "/" + key}
    raise VolumeError(
        f"The volume path {path!r} has the unknown scheme {url.scheme!r}. Known are local paths, "
        "s3://, gs://, http:// and https://."
    )


def join(path: str, *names: str) -> str:
    """`path` and the names below it, for local paths and URLs alike."""
    return "/".join([path.rstrip("/"), *names])


def split_parent(path: str) -> tuple[str, str]:
    """The folder that holds `path`, and its last name."""
    parent, _, name = path.rstrip("/").rpartition("/")
    return parent, name


def read_json(path: str, name: str) -> dict | None:
    """The JSON object stored as `name` in the folder `path`; None if there is none."""
    try:
        result = ts.KvStore.open(kvstore_spec(path)).result().read(name).result()
    except ValueError as error:
        raise VolumeError(f"{join(path, name)} cannot be read: {error}") from error
    if result.state != "value":
        return None
    try:
        return json.loads(result.value)
    except ValueError as error:
        raise VolumeError(
            f"{join(path, name)} is not valid JSON ({error}); the volume's metadata is damaged. "
            "Restore the file, or recreate the volume."
        ) from error


def write_json(path: str, name: str, values: dict) -> None:
    """Store `values` as `name` in the folder `path`, in one piece or not at all."""
    data = json.dumps(values, indent=2, sort_keys=True).encode()
    try:
        ts.KvStore.open(kvstore_spec(path)).result().write(name, data).result()
    except ValueError as error:
        raise VolumeError(f"{join(path, name)} cannot be written: {error}") from error


def delete_folder(path: str) -> None:
    """Remove the folder `path` and everything below it."""
    ts.KvStore.open(kvstore_spec(path)).result().delete_range(ts.KvStore.KeyRange()).result()
