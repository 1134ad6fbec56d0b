"""Shared helper: OME-TIFF in several files."""

import tifffile


def write_ome_series(folder, sections):
    """One file per section; the description in each names all of them, as microscopes write it."""
    height, width = sections[0].shape
    planes = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="z{z}.ome.tif">urn:uuid:{z}'
        "</UUID></TiffData>" for z in range(len(sections))
    )
    description = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="{width}" '
        f'SizeY="{height}" SizeZ="{len(sections)}" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0:0"/>{planes}</Pixels></Image></OME>'
    )
    for z, values in enumerate(sections):
        tifffile.imwrite(
            folder / f"z{z}.ome.tif", values, description=description, metadata=None,
            photometric="minisblack",
        )
