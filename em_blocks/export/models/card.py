"""The card of a model: README.md for those who get it."""

from __future__ import annotations

from collections.abc import Iterator

from em_blocks.export.models.model import Model, channel_names

MAIN_SCORES = 24  # rows of the table; metrics.json has all of them


def card(model: Model) -> str:
    """Write the card in Markdown."""
    return "\n".join([*_header(model), *_input(model), *_outputs(model), *_data(model),
                      *_validation(model), *_use(model)]) + "\n"


def description(model: Model) -> str:
    """Say in one sentence what the model does."""
    if model.about.description:
        return model.about.description
    size = " x ".join(f"{n:g}" for n in model.config.voxel_size)
    return (
        f"{', '.join(model.config.heads)} of electron microscopy at voxels of {size} nm (z, y, x), "
        "trained with em_blocks."
    )


def _header(model: Model) -> Iterator[str]:
    yield f"# {model.config.name}"
    yield ""
    yield description(model)
    yield ""
    if model.about.authors:
        yield f"Authors: {', '.join(author.name for author in model.about.authors)}."
    yield f"Licence: {model.about.license or 'not stated; ask the authors before you use it'}."
    for cited in model.about.cite:
        yield f"Please cite: {cited.text} {cited.doi or cited.url or ''}".rstrip()
    yield ""


def _input(model: Model) -> Iterator[str]:
    config, scale = model.config, model.config.normalization
    yield "## Input"
    yield ""
    yield "| | |"
    yield "| --- | --- |"
    yield "| raw | one channel of grey values, axes (z, y, x) |"
    yield f"| voxel size | {_triple(config.voxel_size)} nm (z, y, x) |"
    yield f"| normalisation | raw * {scale.scale!r} + {scale.shift!r} |"
    yield f"| stored intensities | {model.raw.dtype} |"
    yield f"| context | {_triple(model.context)} voxels per side that it sees beyond its output |"
    if (factor := getattr(model.network, "tile_factor", None)) is not None:
        yield f"| output tiles | multiples of {_triple(factor)} voxels |"
    else:
        tile = _triple(config.tile_shape)
        yield f"| output tiles | {tile} voxels; its values depend on where tiles begin |"
    yield ""


def _outputs(model: Model) -> Iterator[str]:
    yield "## Output"
    yield ""
    yield "| head | kind | activation | channels |"
    yield "| --- | --- | --- | --- |"
    for name, head in model.config.heads.items():
        unit = f", times {head.unit_nm:g} nm" if hasattr(head, "unit_nm") else ""
        names = ", ".join(channel_names(name, head))
        yield f"| {name} | {head.kind} | {head.activation}{unit} | {head.channels}: {names} |"
    yield ""


def _data(model: Model) -> Iterator[str]:
    yield "## Training data"
    yield ""
    if not model.about.data and not model.record.get("data"):
        yield "Not recorded."
    for data in model.about.data:
        where = f", {data.url}" if data.url else ""
        yield f"- {data.name}: licence {data.license or 'not stated'}{where}"
    used = model.record.get("data", {})
    for key, what in (("sources", "trained on"), ("validation", "validated on")):
        for source in used.get(key, []):
            place = f", voxels {source['begin']} to {source['end']}" if "begin" in source else ""
            content = f", sha256 {source['sha256'][:12]}" if "sha256" in source else ""
            yield f"- {what} {source.get('name', 'a volume')}{place}{content}"
    if model.iteration is not None:
        yield ""
        yield f"Weights of iteration {model.iteration}; training.json has the config of the training."
    yield ""


def _validation(model: Model) -> Iterator[str]:
    yield "## Validation"
    yield ""
    scores = model.scores()
    if not scores:
        yield "No scores are recorded. Score it on labelled data of your own before you trust it."
    else:
        yield "Scores of these weights on the validation data of their training:"
        yield ""
        yield "| score | value |"
        yield "| --- | --- |"
        for name, value in list(scores.items())[:MAIN_SCORES]:
            yield f"| {name} | {value:.4f} |"
    yield ""
    yield "Other tissue, staining or microscopes can give worse results: look at predictions first."
    yield ""


def _use(model: Model) -> Iterator[str]:
    yield "## Use"
    yield ""
    if model.needs_code:
        yield "network.py builds the network: it is code, which you run if you use this model. Read it."
        yield ""
    yield "    em-blocks model test FOLDER      # gives it the same values here?"
    yield '    em-blocks predict config.json    # with "setup": "FOLDER"'
    yield ""
    yield "sample/input.npy is a test input, sample/HEAD.npy what the network gives for it in fp32."


def _triple(values: object) -> str:
    return " x ".join(f"{n:g}" for n in values)  # type: ignore[attr-defined]
