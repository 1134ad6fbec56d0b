"""What tasks write: volumes, tables of rows per block, and rows in the database."""

from em_blocks.outputs.base import Checksum, Output
from em_blocks.outputs.context import RunContext
from em_blocks.outputs.rows import RowOutput
from em_blocks.outputs.table import TableOutput
from em_blocks.outputs.volume import VolumeOutput

__all__ = ["Checksum", "Output", "RowOutput", "RunContext", "TableOutput", "VolumeOutput"]
