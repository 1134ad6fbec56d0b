"""Folders and zip files of models: checksums of every file, written whole, opened with care."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from em_blocks.errors import CheckpointError, ConfigError, RefusedError, VolumeError

CHECKSUMS = "checksums.json"
MOST_BYTES = 16 * 2**30  # of an unpacked zip file
MOST_FILES = 10_000


@contextmanager
def new_package(output: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `output`, a folder or a .zip file, if nothing fails.

    Raises
    ------
    RefusedError
        If `output` exists.
    VolumeError
        If its place cannot be written.
    """
    if output.exists():
        raise RefusedError(
            f"{output} exists and is not overwritten: files of two models would be mixed. Choose "
            "another name, or remove it first."
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise VolumeError(
            f"{output.parent} cannot be written ({error.strerror}). Choose another place for the model."
        ) from error
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes folders for their owner only
        if output.suffix == ".zip":
            _zip(partial, output)
        else:
            os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _zip(folder: Path, output: Path) -> None:
    partial = folder.with_name(f"{folder.name}.zip")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in _files(folder):
                archive.write(file, file.relative_to(folder).as_posix())
        os.rename(partial, output)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def opened_package(path: Path) -> Iterator[Path]:
    """Yield the folder of a model, unpacked for the time being if it is a zip file.

    Raises
    ------
    ConfigError
        If there is none, or the zip file holds anything but plain files within its folder.
    """
    if path.is_dir():
        yield path
        return
    if not zipfile.is_zipfile(path):
        what = "does not exist" if not path.exists() else "is neither a folder nor a zip file"
        raise ConfigError(
            f"The model {path} {what}. Models travel as a folder or a .zip file: what `em-blocks model "
            "export` writes, or a package of bioimage.io."
        )
    with tempfile.TemporaryDirectory(prefix="em_blocks-model-") as folder:
        _unpack(path, Path(folder))
        yield _only_folder(Path(folder))


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            for member in members:
                archive.extract(member, folder)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ConfigError(
            f"The zip file {path} cannot be unpacked: {error}. It is damaged; download it again."
        ) from error


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    size = sum(member.file_size for member in members)
    if size > MOST_BYTES or len(members) > MOST_FILES:
        raise ConfigError(
            f"The zip file {path} unpacks to {size / 2**30:.3g} GiB in {len(members)} files, more "
            f"than the {MOST_BYTES / 2**30:.0f} GiB and {MOST_FILES} files of any model. It was not "
            "unpacked."
        )
    for member in members:
        name = PurePosixPath(member.filename)
        link = (member.external_attr >> 16) & 0o170000 == 0o120000
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename or link:
            raise ConfigError(
                f"The zip file {path} holds {member.filename!r}, which "
                f"{'is a link' if link else 'leaves its folder'}. A model needs no such file; it "
                "was not unpacked."
            )


def _only_folder(folder: Path) -> Path:
    """Return the folder that holds the files: some archives have one folder around them."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def write_checksums(folder: Path) -> None:
    """Write the sha256 of every file below `folder` into checksums.json."""
    found = {file.relative_to(folder).as_posix(): sha256(file) for file in _files(folder)}
    found.pop(CHECKSUMS, None)  # of an earlier time
    (folder / CHECKSUMS).write_text(json.dumps({"sha256": found}, indent=2) + "\n")


def check_checksums(folder: Path) -> None:
    """Compare every file with checksums.json.

    Raises
    ------
    CheckpointError
        If one is missing, damaged, or was added.
    """
    try:
        stated = dict(json.loads((folder / CHECKSUMS).read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CHECKSUMS} cannot be read ({type(error).__name__}: {error}), so it is not known "
            "whether the files of the model are those that were exported. Copy it again."
        ) from error
    found = {file.relative_to(folder).as_posix(): file for file in _files(folder)}
    del found[CHECKSUMS]
    missing, added = sorted(stated.keys() - found.keys()), sorted(found.keys() - stated.keys())
    changed = sorted(n for n in stated.keys() & found.keys() if sha256(found[n]) != stated[n])
    listed = (("missing", missing), ("damaged or changed", changed), ("added", added))
    problems = [f"{what}: {', '.join(names)}" for what, names in listed if names]
    if problems:
        raise CheckpointError(
            f"The files of the model in {folder} are not those that were exported "
            f"({'; '.join(problems)}; by {CHECKSUMS}). Its predictions could be anything; copy or "
            "download it again."
        )


def sha256(file: Path) -> str:
    """Return the checksum of a file (hex)."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
