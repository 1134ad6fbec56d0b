"""What we write of the place of an array, for every reader we know."""

from em_blocks.geometry import Frame
from em_blocks.volumes.metadata.attributes import frame_attributes, keeps_channel_axis

FRAME = Frame((50, 4.6, 4.7), (100, 46, -94))


def test_only_an_array_that_we_made_keeps_the_axis_of_a_single_channel():
    assert keeps_channel_axis(frame_attributes(FRAME, channels=True))
    assert not keeps_channel_axis(frame_attributes(FRAME, channels=False))
    assert not keeps_channel_axis({"axis_names": ["c^", "z", "y", "x"], "voxel_size": [4, 4, 4]})
