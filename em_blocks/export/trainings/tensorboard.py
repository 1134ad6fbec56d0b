"""Curves of trainings as TensorBoard logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from em_blocks.errors import RefusedError
from em_blocks.training.records.recorded import Recorded


def write_tensorboard(trainings: Sequence[Recorded], folder: Path) -> None:
    """Write one log per training below `folder`, with the times of the measurements.

    Raises
    ------
    RefusedError
        If `folder` has a log of one of the trainings: TensorBoard would show both as one.
    """
    places = [folder / _name(training) for training in trainings]
    if there := [str(place) for place in places if place.exists()]:
        raise RefusedError(
            f"{' and '.join(there)} exist already, and TensorBoard shows all logs of a folder as one "
            "curve. Use another --output, or remove them."
        )
    for training, place in zip(trainings, places, strict=True):
        _write(training, place)


def _name(training: Recorded) -> str:
    setup = training.document["setup"]
    return training.folder.name if training.number is None else f"{training.number}_{setup}"


def _write(training: Recorded, folder: Path) -> None:
    from tensorboardX import summary
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter

    from em_blocks.training.records.tensorboard import tag

    folder.mkdir(parents=True)
    series = training.curves()
    times = [time for one in series.values() for time in one.times]
    first = min(times, default=0.0)
    events = RecordWriter(str(folder / f"events.out.tfevents.{first:.0f}.em_blocks"))
    events.write(Event(wall_time=first, file_version="brain.Event:2").SerializeToString())
    points = sorted(
        (step, name, time, value)
        for name, one in series.items()
        for step, value, time in zip(one.steps, one.values, one.times, strict=True)
        if value is not None
    )
    for step, name, time, value in points:
        point = summary.scalar(tag(name), value)
        events.write(Event(wall_time=time, step=step, summary=point).SerializeToString())
    events.close()
