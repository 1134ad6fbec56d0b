"""Worker for CPU tasks: ``python -m em_blocks.workers.block_worker JOB``."""

import logging
import sys
from pathlib import Path

from em_blocks.runtime.worker import run_worker

if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    run_worker(Path(sys.argv[1]))
