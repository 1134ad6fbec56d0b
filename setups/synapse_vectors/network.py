"""Valid 3-D U-Net for synapses in thick sections."""

from em_blocks.nets.unet import Head, UNet


def build(config):
    """Network of a `SetupConfig`, with random weights."""
    heads = {
        name: Head(head.channels, head.activation, getattr(head, "unit_nm", 1.0))
        for name, head in config.heads.items()
    }
    return UNet(**config.network.model_dump(), heads=heads)
