"""The viewer's command: what it serves over real HTTP, and what it tells neuroglancer of volumes."""

import gzip
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import h5py
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from em_blocks.cli.main import main
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Frame
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.models.setup import Setup
from em_blocks.volumes import Volume
from em_blocks.volumes.multiscale import level_path, write_multiscales
from em_blocks.volumes.synapse_files import write_synapses
from em_blocks.volumes.viewer import neuroglancer
from em_blocks.volumes.viewer.annotations import write_annotations
from em_blocks.volumes.viewer.file_server import ByteRange, FileServer
from em_blocks.volumes.viewer.neuroglancer import Shown, find_volumes
from tiny_setup import write_setup

ORIGIN = "https://viewer.example"
FRAME = Frame((40, 4.6, 4.6), (400, 46, 9.2))
SHAPE = (6, 20, 30)


def make(path, dtype="uint8", *, channels=None, format="zarr", frame=FRAME, values=None, **attributes):
    volume = Volume.create(
        path, shape=SHAPE, dtype=dtype, frame=frame, chunk_shape=(3, 10, 15), channels=channels,
        format=format, attributes=attributes,
    )
    if values is not None:
        shape = SHAPE if channels is None else (channels, *SHAPE)
        volume.write(volume.box, np.broadcast_to(values, shape).astype(dtype))
    return str(path)


# -- the server ------------------------------------------------------------------------------


@contextmanager
def serving(*folders):
    """A running server, and the URLs of its folders."""
    with FileServer(0, ORIGIN) as server:
        urls = [server.offer(folder) for folder in folders]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server, *urls
        finally:
            server.shutdown()
            thread.join()


def ask(url, method="GET", **headers):
    """Status, headers and body of a request; the target is sent as it is."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    try:
        connection.request(method, url.split(place.netloc, 1)[1], headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    """A folder with files, one beside it, and links out of it."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "offered"
    (folder / "0" / "1").mkdir(parents=True)
    (folder / ".zarray").write_text("{}")
    (folder / "0" / "1" / "2").write_bytes(bytes(range(256)))
    (folder / "a b%").write_text("odd name")
    (home / "secret").write_text("secret")
    (folder / "link").symlink_to(home / "secret")
    (folder / "up").symlink_to(home)
    (folder / "inner").symlink_to(folder / "0")
    return folder


def test_files_of_an_offered_folder_are_served_whole_and_in_ranges(offered):
    with serving(offered) as (_, url):
        status, headers, body = ask(f"{url}/0/1/2")
        assert (status, body) == (200, bytes(range(256)))
        assert headers["Content-Length"] == "256" and headers["Accept-Ranges"] == "bytes"
        for asked, expected, told in (
            ("bytes=10-19", range(10, 20), "bytes 10-19/256"),
            ("bytes=250-", range(250, 256), "bytes 250-255/256"),
            ("bytes=-6", range(250, 256), "bytes 250-255/256"),
            ("bytes=250-999", range(250, 256), "bytes 250-255/256"),
            ("bytes=0-0", range(1), "bytes 0-0/256"),
        ):
            status, headers, body = ask(f"{url}/0/1/2", Range=asked)
            assert (status, body, headers["Content-Range"]) == (206, bytes(expected), told), asked
            assert headers["Content-Length"] == str(len(body))
        status, headers, body = ask(f"{url}/0/1/2", Range="bytes=256-300")
        assert (status, headers["Content-Range"], body) == (416, "bytes */256", b"")
        assert ask(f"{url}/0/1/2", Range="bytes=0-1,5-6")[0] == 200
        assert ask(f"{url}/a%20b%25")[2] == b"odd name"
        assert ask(f"{url}/inner/1/2")[0] == 200, "links within the folder are followed"


def test_a_head_request_tells_the_size_without_the_bytes(offered):
    with serving(offered) as (_, url):
        status, headers, body = ask(f"{url}/0/1/2", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "256", b"")


def test_a_chunk_that_was_never_written_is_not_found(offered):
    with serving(offered) as (_, url):
        for missing in ("0/0/0", "0/1", "0/1/2/3", "", "x" * 300):
            status, headers, body = ask(f"{url}/{missing}")
            assert (status, body) == (404, b""), missing
            assert headers["Access-Control-Allow-Origin"] == ORIGIN, "else a page sees an error"


@pytest.mark.parametrize("way_out", [
    "../secret", "0/../../secret", "%2e%2e/secret", "..%2fsecret", "0/%2e%2e/%2e%2e/secret",
    "link", "up/secret", "//etc/passwd", "%2fetc%2fpasswd", "./link", "0/1/2%00", "..%5csecret",
])
def test_nothing_outside_of_the_folder_is_served(offered, way_out):
    with serving(offered) as (_, url):
        status, _, body = ask(f"{url}/{way_out}")
        assert (status, body) == (404, b"")


def test_without_the_word_of_the_address_nothing_is_served(offered):
    with serving(offered) as (server, url):
        for word in ("guess", "", "%C3%A9"):
            assert ask(f"{url.replace(server.word, word)}/.zarray")[0] == 404
        for number in ("1", "-1", "x", "%C2%B2"):
            assert ask(f"{server.url}/{number}/.zarray")[0] == 404
        assert ask(f"{url}/.zarray")[0] == 200
    with FileServer(0, ORIGIN) as other:
        assert other.word != server.word and len(other.word) >= 16


def test_only_pages_of_the_viewer_may_read_and_only_under_the_name_of_this_machine(offered):
    with serving(offered) as (server, url):
        assert ask(f"{url}/.zarray")[1]["Access-Control-Allow-Origin"] == ORIGIN
        for method in ("GET", "HEAD", "OPTIONS"):
            assert ask(f"{url}/.zarray", method, Host="evil.example")[0] == 403
        assert ask(f"{url}/.zarray", Host=f"localhost:{server.server_port}")[0] == 200
        assert server.server_address[0] == "127.0.0.1"


def test_a_browser_that_asks_first_is_told_what_is_allowed(offered):
    with serving(offered) as (_, url):
        status, headers, body = ask(
            f"{url}/.zarray", "OPTIONS", Origin=ORIGIN,
            **{"Access-Control-Request-Method": "GET", "Access-Control-Request-Private-Network": "true"},
        )
    assert (status, body) == (204, b"")
    assert headers["Access-Control-Allow-Private-Network"] == "true"
    assert headers["Access-Control-Allow-Headers"] == "Range"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(offered, method):
    with serving(offered) as (_, url):
        assert ask(f"{url}/.zarray", method)[0] == 501
    assert (offered / ".zarray").read_text() == "{}"


def test_connections_are_kept_for_many_requests(offered):
    with serving(offered) as (_, url):
        place = urlsplit(url)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
        for name in ("0/1/2", "missing", "0/1/2") * 5:
            connection.request("GET", f"{place.path}/{name}")
            answer = connection.getresponse()
            answer.read()
            assert not answer.will_close
        connection.close()


def test_a_port_in_use_is_said_in_a_paragraph():
    with (
        FileServer(0, ORIGIN) as server,
        pytest.raises(ConfigError, match=f"Port {server.server_port} .* in use.* another --port"),
    ):
        FileServer(server.server_port, ORIGIN)


def test_ranges_of_an_empty_file_and_of_nothing():
    assert ByteRange.of(None, 0) is None and ByteRange.of("bytes=-", 5) is None
    assert ByteRange.of("bytes=0-", 5) == (0, 5)
    for header in ("bytes=0-0", "bytes=-5"):
        with pytest.raises(ValueError, match="bytes"):
            ByteRange.of(header, 0)


# -- layers ----------------------------------------------------------------------------------


def test_a_chunk_that_is_compressed_by_itself_is_served_by_its_plain_name(tmp_path):
    (tmp_path / "em/4_4_40").mkdir(parents=True)
    (tmp_path / "em/4_4_40/0-64_0-64_0-64.gz").write_bytes(gzip.compress(b"voxels"))
    (tmp_path / "em/4_4_40/64-128_0-64_0-64.gz").write_bytes(b"damaged")
    with serving(tmp_path / "em") as (_, url):
        assert ask(f"{url}/4_4_40/0-64_0-64_0-64")[::2] == (200, b"voxels")
        assert ask(f"{url}/4_4_40/0-64_0-64_0-64", Range="bytes=1-2")[::2] == (206, b"ox")
        assert ask(f"{url}/4_4_40/64-128_0-64_0-64")[0] == 404
        assert ask(f"{url}/4_4_40/0-64_0-64_64-128")[0] == 404


def world(layer, voxel):
    """World position, nm (z, y, x), of the corner of a stored voxel: as neuroglancer computes it.

    A step along a stored axis is the length of that axis in `inputDimensions`; the last column of the
    matrix is in steps of `outputDimensions`.
    """
    transform = layer["source"]["transform"]
    inputs = [scale for scale, _ in transform["inputDimensions"].values()]
    found = {}
    for row, (axis, (scale, _)) in zip(
        transform["matrix"], transform["outputDimensions"].items(), strict=True
    ):
        *factors, shift = row
        length = sum(f * v * i for f, v, i in zip(factors, voxel, inputs, strict=True))
        found[axis] = (length + shift * scale) * 1e9
    return [found[axis] for axis in "zyx"]


@pytest.mark.parametrize(("format", "names", "scheme"), [
    ("zarr", ["z", "y", "x"], "zarr2"), ("zarr3", ["z", "y", "x"], "zarr3"),
    ("n5", ["x", "y", "z"], "n5"),
])
def test_voxels_are_shown_where_they_lie(tmp_path, format, names, scheme):
    shown = Shown.open(make(tmp_path / "raw", format=format), "raw")
    layer = neuroglancer.layer(shown, "http://here/raw")
    assert layer["source"]["url"] == f"{scheme}://http://here/raw"
    assert list(layer["source"]["transform"]["inputDimensions"]) == names
    voxel = (5, 7, 3)  # z, y, x
    stored = voxel[::-1] if format == "n5" else voxel
    expected = np.array(FRAME.offset) + np.array(voxel) * FRAME.voxel_size
    np.testing.assert_allclose(world(layer, stored), expected)


def test_channels_come_first_and_are_all_there_for_the_shader(tmp_path):
    shown = Shown.open(make(tmp_path / "affinities", channels=4), "affinities")
    transform = neuroglancer.layer(shown, "u")["source"]["transform"]
    assert list(transform["outputDimensions"]) == ["c^", "z", "y", "x"]
    assert transform["outputDimensions"]["c^"] == [1, ""]
    expected = np.array(FRAME.offset) + np.array((5, 7, 3)) * FRAME.voxel_size
    np.testing.assert_allclose(world({"source": {"transform": transform}}, (2, 5, 7, 3)), expected)


@pytest.mark.parametrize(("names", "shown_as"), [
    (None, ["d0", "d1", "d2"]), (["x", "z", "y"], ["x", "z", "y"]),
])
def test_axes_of_others_are_shown_by_their_own_names_and_order(tmp_path, names, shown_as):
    array = zarr.open(str(tmp_path / "raw"), mode="w", shape=(6, 8, 10), dtype="u1", chunks=(4, 4, 4))
    axes = names or [*"zyx"]
    size, offset = dict(zip("zyx", FRAME.voxel_size)), dict(zip("zyx", FRAME.offset))
    array.attrs["voxel_size"] = [size[a] for a in axes]
    array.attrs["offset"] = [offset[a] for a in axes]
    if names:
        array.attrs["_ARRAY_DIMENSIONS"] = names
    layer = neuroglancer.layer(Shown.open(str(tmp_path / "raw"), "raw"), "u")
    transform = layer["source"]["transform"]
    assert list(transform["inputDimensions"]) == shown_as
    assert list(transform["outputDimensions"]) == axes
    place = (1, 2, 3)
    expected = np.array([
        FRAME.offset["zyx".index(a)] + v * size[a] for a, v in zip(axes, place)
    ])[[axes.index(a) for a in "zyx"]]
    np.testing.assert_allclose(world(layer, place), expected)


def ngff_levels(*paths):
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    return [{"axes": axes, "datasets": [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": [40, 4 << n, 4 << n]}]}
        for n, path in enumerate(paths)
    ]}]


@pytest.mark.parametrize("paths", [("0", "1"), ("em/s0", "em/s1")])
def test_a_pyramid_is_one_layer_whatever_its_levels_are_called(tmp_path, paths):
    root = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    for n, path in enumerate(paths):
        root.create_dataset(path, data=np.ones((4, 8 >> n, 8 >> n), "u1"), chunks=(4, 4, 4))
    root.attrs["multiscales"] = ngff_levels(*paths)
    labels = root.create_group("labels/cells")
    for n in range(2):
        labels.create_dataset(str(n), data=np.ones((4, 8 >> n, 8 >> n), "u8"), chunks=(4, 4, 4))
    labels.attrs["multiscales"] = ngff_levels("0", "1")
    shown = state(tmp_path / "x.zarr")
    assert [(layer["name"], layer["type"]) for layer in shown["layers"]] == [
        ("x.zarr", "image"), ("labels/cells", "segmentation")
    ]
    assert all("s0" not in layer["source"]["url"] for layer in shown["layers"])


@pytest.mark.parametrize(("where", "says"), [
    ("em", {"scales": [[1, 1, 1], [2, 2, 1]]}), ("em", {"multiScale": True}),
    ("em/s1", {"downsamplingFactors": [2, 2, 1]}),
])
def test_a_pyramid_of_n5_is_one_layer(tmp_path, where, says):
    for name in ["s0", "s1"]:
        make(tmp_path / "x.n5/em" / name, format="n5")
    assert len(list(find_volumes(str(tmp_path)))) == 2
    file = tmp_path / "x.n5" / where / "attributes.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | says))
    assert list(find_volumes(str(tmp_path))) == [str(tmp_path / "x.n5/em")]
    assert Shown.open(str(tmp_path / "x.n5/em"), "em").volume.path == str(tmp_path / "x.n5/em/s0")


def test_a_scale_of_a_precomputed_volume_is_shown_with_the_others(tmp_path):
    make(tmp_path / "em/s0", format="precomputed")
    assert Shown.open(str(tmp_path / "em/s0"), "s0").folder == str(tmp_path / "em")


def test_precomputed_volumes_and_pyramids_tell_their_place_themselves(tmp_path):
    make(tmp_path / "labels" / "s0", "uint64", format="precomputed", labels=True)
    levels = [Volume.open(make(level_path(str(tmp_path / "x.zarr" / "raw"), 0)))]
    write_multiscales(str(tmp_path / "x.zarr" / "raw"), "zarr", levels)
    found = list(find_volumes(str(tmp_path)))
    assert found == [str(tmp_path / "labels"), str(tmp_path / "x.zarr" / "raw")]
    layers = [neuroglancer.layer(Shown.open(path, "v"), "http://u") for path in found]
    assert [layer["source"] for layer in layers] == [
        {"url": "precomputed://http://u"}, {"url": "zarr2://http://u"}
    ]
    assert [layer["type"] for layer in layers] == ["segmentation", "image"]


@pytest.mark.parametrize(("options", "role"), [
    ({"dtype": "uint8"}, "image"), ({"dtype": "float32"}, "image"), ({"dtype": "uint16"}, "image"),
    ({"dtype": "uint64"}, "labels"), ({"dtype": "uint32"}, "labels"),
    ({"dtype": "uint8", "labels": True}, "labels"), ({"dtype": "uint32", "labels": False}, "image"),
    ({"dtype": "uint8", "channels": 3, "scale": 255.0}, "channels"),
    ({"dtype": "float32", "channels": 10, "values": -1}, "channels"),
    ({"dtype": "int8", "channels": 3, "scale": 0.25}, "vectors"),
    ({"dtype": "float32", "channels": 3, "values": -1}, "vectors"),
    ({"dtype": "float32", "channels": 3, "values": 0.5}, "channels"),
    ({"dtype": "uint8", "channels": 1, "scale": 255.0}, "score"),
    ({"dtype": "uint8", "scale": 255.0}, "score"),
])
def test_a_volume_is_shown_by_what_it_holds(tmp_path, options, role):
    shown = Shown.open(make(tmp_path / "v", **options), "v")
    assert shown.role == role
    layer = neuroglancer.layer(shown, "u")
    assert layer["type"] == ("segmentation" if role == "labels" else "image")
    assert ("shader" in layer) == (role != "labels")


def test_contrast_covers_the_values_that_there_are(tmp_path):
    values = 90 + 60 * np.linspace(0, 1, SHAPE[2])
    raw = Shown.open(make(tmp_path / "raw", values=values), "raw")
    low, high = json.loads(re.search(r"range=(\[.*?\])", neuroglancer.layer(raw, "u")["shader"])[1])
    assert 90 <= low < 95 and 145 < high <= 150
    empty = Shown.open(make(tmp_path / "empty"), "empty")
    assert "range=[0.0, 255.0]" in neuroglancer.layer(empty, "u")["shader"]


def test_vectors_are_shown_in_nm(tmp_path):
    shown = Shown.open(make(tmp_path / "v", "int8", channels=3, scale=0.25), "v")
    assert "/ 0.25" in neuroglancer.layer(shown, "u")["shader"]


@pytest.mark.parametrize(("options", "message"), [
    ({"dtype": "float64"}, "holds float64, which neuroglancer cannot show"),
    ({"dtype": "float32", "channels": 3, "format": "n5"}, "N5 array with channels"),
])
def test_what_neuroglancer_cannot_show_is_refused(tmp_path, options, message):
    with pytest.raises(VolumeError, match=message):
        Shown.open(make(tmp_path / "v", **options), "v")


# -- the command -----------------------------------------------------------------------------


def view(*arguments):
    return CliRunner().invoke(main, ["view", *map(str, arguments)])


def state(*arguments):
    result = view(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "brain.zarr"
    make(folder / "segments", "uint64", values=7)
    make(folder / "fragments", "uint64", values=3)
    make(folder / "raw", values=np.arange(30))
    make(folder / "predictions" / "indicator", scale=255.0)
    make(folder / "predictions" / "affinities", channels=3)
    return folder


def synapses():
    post = np.array([[440.0, 60.0, 40.0], [520.0, 90.0, 80.0]])
    return Synapses(id=[1, 2], pre=post + 30, post=post, score=[0.5, 0.9])


def test_a_container_is_shown_with_all_its_arrays_raw_below_labels(container):
    shown = state(container)
    layers = {layer["name"]: layer for layer in shown["layers"]}
    assert list(layers) == [
        "raw", "predictions/affinities", "predictions/indicator", "fragments", "segments"
    ]
    hidden = [name for name, layer in layers.items() if not layer.get("visible", True)]
    assert hidden == ["predictions/affinities", "fragments"]
    assert shown["dimensions"] == {"x": [4.6e-9, "m"], "y": [4.6e-9, "m"], "z": [40e-9, "m"]}
    middle = np.array(FRAME.offset) + np.array(SHAPE) / 2 * FRAME.voxel_size
    np.testing.assert_allclose(shown["position"], np.floor(middle / FRAME.voxel_size)[::-1] + 0.5)


def test_arrays_of_one_name_are_told_apart(container, tmp_path):
    other = make(tmp_path / "raw")
    names = [layer["name"] for layer in state(container / "raw", other)["layers"]]
    assert names == [f"{container.name}/raw", f"{tmp_path.name}/raw"]
    assert len(state(container / "raw", container)["layers"]) == 5, "nothing is shown twice"


def test_checkpoints_are_compared_in_panels_over_the_same_image(container, tmp_path):
    paths = [make(tmp_path / f"{n}.zarr/mito", scale=255.0) for n in (1000, 2000, 3000)]
    shown = state(container / "raw", *paths, container / "segments", "--grid")
    layers = {layer["name"]: layer for layer in shown["layers"]}
    names = ["1000.zarr/mito", "2000.zarr/mito", "3000.zarr/mito", "segments"]
    assert list(layers) == ["raw", *names] and not any("visible" in v for v in layers.values())
    rows = shown["layout"]["children"]
    assert shown["layout"]["type"] == "column" and [row["type"] for row in rows] == ["row", "row"]
    panels = [panel for row in rows for panel in row["children"]]
    assert [panel["layers"] for panel in panels] == [["raw", name] for name in names]
    two = state(container / "raw", *paths[:2], "--grid")["layout"]
    assert (two["type"], len(two["children"])) == ("row", 2)


def test_one_prediction_is_compared_with_nothing(container):
    result = view(container / "raw", container / "segments", "--grid")
    assert result.exit_code == 2 and "Name at least two" in result.stderr


def test_a_data_config_is_shown_with_its_regions_and_their_context(container, tmp_path):
    config = {
        "left": {
            "file": "brain.zarr", "voxel_size": FRAME.voxel_size, "offset": [11, 12, 4],
            "shape": [2, 8, 10], "raw": "raw", "labels": {"segments": "mito"}, "mask": "fragments",
        },
    }
    (container.parent / "data.json").write_text(json.dumps(config))
    setup = write_setup(tmp_path / "tiny")
    shown = state("--data", container.parent / "data.json", "--setup", setup)
    layers = {layer["name"]: layer for layer in shown["layers"]}
    assert list(layers) == ["left/raw", "left/mito", "left/specimen", "context", "regions"]
    assert [layers[f"left/{n}"]["type"] for n in ("raw", "mito")] == ["image", "segmentation"]
    (box,) = layers["regions"]["annotations"]
    begin, end = np.array([11, 12, 4]) * FRAME.voxel_size, np.array([13, 20, 14]) * FRAME.voxel_size
    np.testing.assert_allclose([box["pointA"], box["pointB"]], [begin[::-1], end[::-1]])
    assert box["description"] == "left 1"
    around = np.array(Setup.from_folder(setup).build().context) * 10  # nm of the setup's voxels
    (wide,) = layers["context"]["annotations"]
    assert around.max() > 0
    np.testing.assert_allclose(wide["pointA"], (begin - around)[::-1])
    np.testing.assert_allclose(wide["pointB"], (end + around)[::-1])


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "Name a PATH, or --data FILE"), (["broken.json", "--setup", "."], "--setup belongs to --data"),
    (["--data", "broken.json"], "broken.json is not valid JSON"),
])
def test_data_that_cannot_be_shown_is_said(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    result = view(*arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_synapses_are_lines_whether_in_a_table_or_a_layer_or_beside_volumes(container, tmp_path):
    for name in ("found.parquet", "found.csv", "found.json"):
        write_synapses(tmp_path / name, synapses())
        shown = state(container / "raw", tmp_path / name)
        assert [layer["type"] for layer in shown["layers"]] == ["image", "annotation"]
        assert shown["layers"][1]["name"] == "found"
    write_annotations(tmp_path / "lines", [synapses()])
    alone = state(tmp_path / "lines")
    assert [layer["name"] for layer in alone["layers"]] == ["lines"]
    np.testing.assert_allclose(alone["position"], [75, 90, 495], atol=1)
    folder = tmp_path / "4.zarr"
    make(folder / "raw")
    write_synapses(folder / "synapses.parquet", synapses())
    assert [layer["name"] for layer in state(folder)["layers"]] == ["raw", "synapses"]


def test_partners_of_cremi_lie_in_the_voxels_of_the_volume_beside_them(container, tmp_path):
    write_synapses(tmp_path / "found.hdf", synapses(), voxel_size=FRAME.voxel_size, offset=FRAME.offset)
    with h5py.File(tmp_path / "found.hdf", "a") as file:
        del file["annotations"].attrs["resolution"]  # which only em_blocks writes
    shown = state(tmp_path / "found.hdf", container / "raw")
    assert [layer["name"] for layer in shown["layers"]] == ["raw", "found"]
    result = view(tmp_path / "found.hdf", "--json")
    assert result.exit_code == 2 and "does not say how large its voxels are" in result.stderr


def test_a_run_is_shown_by_its_config_with_inputs_and_outputs(container, tmp_path):
    config = {
        "kind": "clean", "run": "cleaned", "labels": str(container / "segments"),
        "output": str(container / "fragments"), "block_shape": [3, 10, 15], "run_dir": str(tmp_path),
        "min_size": 2,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    names = [layer["name"] for layer in state(tmp_path / "config.json")["layers"]]
    assert names == ["segments", "fragments"]


def test_volumes_that_cannot_be_shown_are_said_and_the_others_shown(tmp_path):
    make(tmp_path / "good")
    make(tmp_path / "halves", "float64")
    result = view(tmp_path, "--json")
    assert result.exit_code == 0
    assert "Not shown" in result.stderr and "float64" in result.stderr
    assert [layer["name"] for layer in json.loads(result.stdout)["layers"]] == ["good"]


def test_volumes_of_a_server_are_read_by_the_viewer_itself(container):
    with serving(container) as (_, url):
        shown = state(f"{url}/segments")
    (layer,) = shown["layers"]
    assert (layer["name"], layer["source"]["url"]) == ("segments", f"zarr2://{url}/segments")


@pytest.mark.parametrize(("arguments", "message"), [
    (["nowhere"], "There is no file or folder nowhere"),
    (["."], "There is nothing to show in ."),
    (["empty.csv"], "empty.csv"),
    ([".", "--client", "viewer"], "no address of a viewer"),
])
def test_bad_input_is_one_paragraph_with_exit_code_2(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").write_text("")
    result = view(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_the_printed_address_holds_a_state_whose_sources_are_served_until_ctrl_c(container):
    # A job in the background ignores Ctrl-C, and what it starts would too.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from em_blocks.cli.main import main; main(['view', {str(container)!r}])"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        client, _, fragment = process.stdout.readline().strip().partition("/#!")
        assert client == "https://neuroglancer-demo.appspot.com"
        layers = {layer["name"]: layer for layer in json.loads(unquote(fragment))["layers"]}
        url = layers["segments"]["source"]["url"].removeprefix("zarr2://")
        status, headers, body = ask(f"{url}/.zarray")
        assert status == 200 and json.loads(body)["shape"] == list(SHAPE)
        assert headers["Access-Control-Allow-Origin"] == client
        assert ask(f"{url}/0/0/0")[0] == 200
        unwritten = layers["predictions/indicator"]["source"]["url"].removeprefix("zarr2://")
        assert ask(f"{unwritten}/0/0/0")[0] == 404, "a chunk that is not written yet"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0 and "Stopped." in output and not errors
