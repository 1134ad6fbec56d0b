"""``em-blocks view``: volumes, synapses, snapshots and runs in neuroglancer."""

from __future__ import annotations

import json
import tempfile
import webbrowser
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import click
import numpy as np

from em_blocks.cli.common import json_option, load_config, opened_store, shows_errors
from em_blocks.cli.export import SYNAPSES_OF, run_of_synapses
from em_blocks.config import VolumeInput, is_url, path_of, without_file_scheme
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.tasks.base import RunConfig
from em_blocks.volumes.stores.ledger import named_blocks, read_ledger
from em_blocks.volumes.synapse_files import FORMATS, IN_VOXELS, read_synapses
from em_blocks.volumes.viewer import annotations, neuroglancer
from em_blocks.volumes.viewer.file_server import FileServer
from em_blocks.volumes.viewer.neuroglancer import ROLES, Role, Shown, find_volumes
from em_blocks.volumes.viewer.panels import box_layer, grid

_REGION, _CONTEXT = "#ffcc00", "#8899aa"

CLIENT = "https://neuroglancer-demo.appspot.com"


@click.command(name="view")
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Show the volumes of a data config too, and boxes around its regions.")
@click.option("--setup", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="SETUP",
              help="With --data: boxes around what this network reads for the regions.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="any free one",
              help="Port of this machine; name one that you forward from another machine.")
@click.option("--client", default=CLIENT, show_default=True, help="Address of the viewer.")
@click.option("--grid", "side_by_side", is_flag=True,
              help="One panel for every prediction and segmentation, side by side, over the images: to "
              "compare checkpoints.")
@click.option("--open", "opens", is_flag=True, help="Open the address in a browser.")
@json_option
@shows_errors
def main(paths: tuple[str, ...], data: Path | None, setup: Path | None, port: int, client: str,
         side_by_side: bool, opens: bool, as_json: bool) -> None:
    """Show PATHs in neuroglancer until Ctrl-C is pressed.

    A PATH is a volume (zarr, N5, precomputed; a URL of an object store too), a folder with volumes
    somewhere below it, a snapshot of a training, a file of synapses, a folder that `em-blocks export
    annotations` wrote, or the CONFIG of a run: its inputs, outputs and synapses.

    Prints an address for the browser. The viewer's page is loaded from --client, all data is read
    from this machine only. With --json the state of the viewer is printed, and nothing is served.
    """
    if not paths and data is None:
        raise click.UsageError("Name a PATH, or --data FILE.")
    if setup is not None and data is None:
        raise click.UsageError("--setup belongs to --data, whose regions it reads around.")
    with ExitStack() as stack:
        server = stack.enter_context(FileServer(port, _origin(client)))
        scene = _Scene(server, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for path in sorted(paths, key=_is_in_voxels):
            scene.add(path)
        if data is not None:
            scene.add_data(data, setup)
        state = scene.state(side_by_side=side_by_side)
        if as_json:
            click.echo(json.dumps(state, indent=2))
            return
        _serve(server, neuroglancer.viewer_url(client, state), opens)


def _is_in_voxels(path: str) -> bool:
    """Tell whether this is a file of partners counted in voxels: those of a volume that is shown too."""
    return Path(path).is_file() and any(
        path.lower().endswith(ending) for ending, name in FORMATS.items() if name in IN_VOXELS
    )


def _serve(server: FileServer, url: str, opens: bool) -> None:
    click.echo(f"{url}\n\nOpen this address in a browser of this machine. Press Ctrl-C to stop.")
    if opens:
        webbrowser.open(url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("Stopped.")


def _origin(client: str) -> str:
    parts = urlsplit(client)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(
            f"--client {client!r} is no address of a viewer. Give one with its scheme, such as {CLIENT}."
        )
    return f"{parts.scheme}://{parts.netloc}"


class _Scene:
    """Layers for what is named, one path after the other.

    Parameters
    ----------
    server : FileServer
    scratch : Path
        Folder for layers that have to be made; exists as long as the server.
    """

    def __init__(self, server: FileServer, scratch: Path):
        self.server, self.scratch = server, scratch
        self.volumes: list[Shown] = []
        self.lines: list[dict] = []
        self._box: list | None = None  # of the lines, nm (x, y, z)

    def add(self, path: str) -> None:
        """Add all that a path of the command line means.

        Raises
        ------
        ConfigError, VolumeError, SynapseFileError
            If there is nothing to show.
        """
        path = without_file_scheme(path)
        if is_url(path):
            return self._add_volume(path.rstrip("/"), path.rstrip("/").rsplit("/", 1)[-1])
        place = Path(path).absolute()
        if place.is_file():
            return self._add_file(place)
        if not place.is_dir():
            raise ConfigError(f"There is no file or folder {path}; name a volume, or a run's config.")
        if _is_annotations(place):
            return self._add_layer(place, place.name)
        before = len(self.volumes) + len(self.lines)
        self._add_below(place)
        if len(self.volumes) + len(self.lines) == before:
            raise VolumeError(
                f"There is nothing to show in {path}: no zarr array (v2 or v3), N5 dataset or "
                "precomputed volume was found there, or neuroglancer knows their types of values "
                "not. Name a volume, or a folder above some."
            )

    def add_data(self, path: Path, setup: Path | None) -> None:
        """Add the volumes and regions of a data config.

        Raises
        ------
        ConfigError
            If something is wrong in it, or in the setup.
        """
        # torch, which other views need not wait for.
        from em_blocks.cli.viewing.data_sets import (
            context_of,
            grown,
            read_sources,
            regions_of,
            volumes_of,
        )

        sources = read_sources(path)
        for place, name, role in volumes_of(sources):
            self._add_volume(place, name, strict=False, role=role)
        regions = regions_of(sources)
        if setup is not None:
            context = grown(regions, context_of(setup))
            self.lines.append(box_layer("context", context, colour=_CONTEXT))
        self.lines.append(box_layer("regions", regions, colour=_REGION))
        corners = np.array([[roi.offset[::-1], roi.end[::-1]] for roi in regions.values()])
        self._box = [corners[:, 0].min(axis=0).tolist(), corners[:, 1].max(axis=0).tolist()]

    def state(self, *, side_by_side: bool = False) -> dict:
        """State of the viewer, with a panel for each result if they are to be `side_by_side`."""
        self.volumes.sort(key=lambda shown: ROLES.index(shown.role))
        layers = [neuroglancer.layer(v, self._url(v.folder)) for v in self.volumes] + self.lines
        told_apart = _told_apart([v.name for v in self.volumes], [v.folder for v in self.volumes])
        names = _unique([*told_apart, *(line["name"] for line in self.lines)])
        for number, (layer, name) in enumerate(zip(layers, names, strict=True)):
            visible = side_by_side or self._is_visible(number)
            layer |= {"name": name} | ({} if visible else {"visible": False})
        if side_by_side:
            return neuroglancer.viewer_state(self.volumes, layers) | {"layout": self._grid(layers)}
        if self.volumes:
            return neuroglancer.viewer_state(self.volumes, layers)
        middle = [(low + high) / 2 for low, high in zip(*self._box, strict=True)]
        return {"dimensions": annotations.DIMENSIONS, "position": middle, "layers": layers}

    def _grid(self, layers: list[dict]) -> dict:
        """Return the layout of a grid; raises `ConfigError` if there is nothing to compare."""
        images = [volume.role == "image" for volume in self.volumes]
        shared = [layer["name"] for layer, image in zip(layers, images, strict=False) if image]
        shared += [line["name"] for line in self.lines]
        if len(layers) - len(shared) < 2:
            raise ConfigError(
                f"--grid compares predictions and segmentations, but {len(layers) - len(shared)} of the "
                f"{len(layers)} layers is one. Name at least two, or leave --grid out."
            )
        return grid(layers, shared=shared)

    def _is_visible(self, number: int) -> bool:
        """Tell whether a layer is shown at first: others than these would hide each other."""
        last = len(self.volumes) - 1
        return number in (0, last) or number > last or self.volumes[number].role == "score"

    def _url(self, folder: str) -> str:
        return folder if is_url(folder) else self.server.offer(folder)

    def _add_file(self, path: Path) -> None:
        if path.suffix == ".json" and _is_config(path):
            return self._add_run(path)
        self._add_table(path.stem, [self._partners(path)])

    def _add_below(self, folder: Path) -> None:
        """Return the volumes at and below a folder, and a table of synapses in it."""
        for found in find_volumes(str(folder)):
            self._add_volume(found, _name(found, folder), strict=found == str(folder))
        for path in sorted(folder.glob("synapses.*")):
            if path.is_file() and path.suffix in FORMATS:
                self._add_table("synapses", [self._partners(path)])

    def _partners(self, path: Path) -> Synapses:
        """Partners of a file; locations of CREMI that do not say it are those of the first volume."""
        shown = self.volumes[0].volume.frame.voxel_size if self.volumes else None
        return read_synapses(path, voxel_size=shown)

    def _add_volume(
        self, place: str | VolumeInput, name: str, *, strict: bool = True, role: Role | None = None
    ) -> None:
        if path_of(place) in [shown.folder for shown in self.volumes]:
            return
        try:
            found = Shown.open(place, name, role)
            if found.folder not in [shown.folder for shown in self.volumes]:
                self.volumes.append(found)
            note_holes(path_of(place))
        except VolumeError as error:
            if strict:
                raise
            click.echo(f"Not shown: {error}", err=True)  # the others are worth a look

    def _add_run(self, path: Path) -> None:
        """Return the volumes that a run reads and writes, and its synapses."""
        task = load_config(path)
        for place in _places(task):
            path = path_of(place)
            for found in find_volumes(path):
                volume = place if found == path else found
                self._add_volume(volume, _name(found, Path(path)), strict=False)
        if task.kind in SYNAPSES_OF:
            from em_blocks.db.synapses import SynapseStore

            run = run_of_synapses(path, task)
            with opened_store(task) as store:
                self._add_table(run, SynapseStore(store.client, task.db_name, run).tables())

    def _add_table(self, name: str, tables: Iterable[Synapses]) -> None:
        folder = self.scratch / str(len(self.lines))
        self._add_layer(folder, name, annotations.write_annotations(folder, tables))

    def _add_layer(
        self, folder: Path, name: str, written: annotations.Layer | None = None
    ) -> None:
        if written is None:
            written = annotations.read_layer(folder)
        state = annotations.viewer_state(written, url=self.server.offer(folder))
        self.lines.append(state["layers"][0] | {"name": name})
        self._box = [written.info["lower_bound"], written.info["upper_bound"]]


def note_holes(folder: str) -> None:
    """Tell of blocks that a shown volume lacks: they look like empty tissue."""
    ledger = read_ledger(folder)
    if ledger is not None and ledger.missing.any():
        click.echo(
            f"Note: {folder} lacks {int(ledger.missing.sum())} of {ledger.grid.n_blocks} blocks of run "
            f"{ledger.run!r} ({named_blocks(ledger.missing)}); they are shown as 0.", err=True,
        )


def _is_config(path: Path) -> bool:
    """Tell whether a JSON file is the config of a run, and not a list of synapses."""
    try:
        values = json.loads(path.read_text())
    except ValueError:
        return False
    return isinstance(values, dict) and "kind" in values


def _is_annotations(folder: Path) -> bool:
    try:
        return json.loads((folder / "info").read_text())["@type"] == annotations.TYPE
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _places(task: RunConfig) -> Iterator[str | VolumeInput]:
    """Return the volumes that a config names by path or URL: those that may be in an object store."""
    yielded = set()
    for step in (task, *task.steps()):
        for value in _named(step.model_dump(exclude=set(step.operational))):
            path = path_of(value)
            if path not in yielded and (is_url(path) or Path(path).is_absolute()):
                yielded.add(path)
                yield value


def _named(values: object) -> Iterator[str | VolumeInput]:
    """Yield all strings in nested dicts and lists, and inputs; local paths are of another type."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict) and values.keys() == VolumeInput.model_fields.keys():
        yield VolumeInput(**values)
    elif isinstance(values, dict):
        for value in values.values():
            yield from _named(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _named(value)


def _name(found: str, named: Path) -> str:
    """Return the name of a volume that was found below a folder, spelled as the folder is."""
    if is_url(found) or found == str(named):
        return found.rstrip("/").rsplit("/", 1)[-1]
    return Path(found).relative_to(named).as_posix()


def _told_apart(names: list[str], paths: list[str]) -> list[str]:
    """Return names, longer by folders above where two are the same: "1000/mito" and "2000/mito"."""
    counts = Counter(names)
    return [
        name if counts[name] == 1 else _tail(name, path, [p for p in paths if p != path])
        for name, path in zip(names, paths, strict=True)
    ]


def _tail(name: str, path: str, others: list[str]) -> str:
    """Return the shortest end of a path, at least as long as `name`, that no other path has."""
    parts = path.rstrip("/").split("/")
    for n in range(name.count("/") + 1, len(parts)):
        tail = "/".join(parts[-n:])
        if not any(other.endswith(f"/{tail}") for other in others):
            return tail
    return name


def _unique(names: list[str]) -> list[str]:
    """Return the names, with a number behind those that came before."""
    return [
        name if name not in names[:n] else f"{name} {names[:n].count(name) + 1}"
        for n, name in enumerate(names)
    ]
