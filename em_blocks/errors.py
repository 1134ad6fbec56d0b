"""Errors a user can act on.

Every message is one paragraph: what came, what was expected, why it matters
and what to do. The exit code of the command is a property of the error. Each is
also of the builtin type that fits, so that code which knows nothing of em_blocks
can handle it.
"""

EXIT_OK = 0
EXIT_FAILED_BLOCKS = 1
EXIT_BAD_INPUT = 2
EXIT_REFUSED = 3


class EmBlocksError(Exception):
    """Base of all errors that are shown as one paragraph, without a traceback."""

    exit_code = EXIT_BAD_INPUT


class ConfigError(EmBlocksError, ValueError):
    """The configuration, or what it points to, cannot be used."""


class GeometryError(EmBlocksError, ValueError):
    """Voxel sizes, offsets or shapes that do not fit each other."""


class BlockAlignmentError(EmBlocksError, ValueError):
    """A block that is not a whole number of chunks or tiles."""


class VolumeError(EmBlocksError, OSError):
    """A volume cannot be opened, created, read or written."""


class SynapseFileError(EmBlocksError, ValueError):
    """A file of synaptic partners that cannot be read or written, or a malformed row of it."""


class CheckpointError(EmBlocksError, OSError):
    """Network weights that are missing, unsafe to load, or of another network."""


class DatabaseError(EmBlocksError, ConnectionError):
    """MongoDB cannot be reached, started or written."""


class DatabaseLostError(DatabaseError):
    """MongoDB was unavailable during a run, for longer than the run waits."""

    exit_code = EXIT_FAILED_BLOCKS


class RefusedError(EmBlocksError, RuntimeError):
    """The command is valid, but running it could damage existing results."""

    exit_code = EXIT_REFUSED


class FingerprintMismatchError(RefusedError):
    """A run of this name exists with other result-relevant settings."""


class IncompleteInputError(RefusedError):
    """An input lacks blocks that the run which makes it has not done."""


class ChangedInputError(RefusedError):
    """An input holds other contents than when this run began."""


class LeaseHeldError(RefusedError):
    """Another scheduler is working on this run."""


class CommitRefusedError(RefusedError):
    """A worker of a replaced scheduler tried to record a block."""


class SchedulerLostError(EmBlocksError, ConnectionError):
    """A worker cannot reach its scheduler, or the scheduler no longer counts on it."""


class RunFailedError(EmBlocksError, RuntimeError):
    """A run that cannot go on although its configuration is fine."""

    exit_code = EXIT_FAILED_BLOCKS
