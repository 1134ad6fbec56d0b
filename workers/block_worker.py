"""Worker for CPU tasks: ``python -m em_blocks.workers.block_worker SESSION``."""

import sys
from pathlib import Path

from em_blocks.runtime.worker.loop import main

if __name__ == "__main__":
    main(Path(sys.argv[1]))
