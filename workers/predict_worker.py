"""Worker for predictions: ``python -m em_blocks.workers.predict_worker SESSION``."""

import os
import sys
from pathlib import Path

import torch

from em_blocks.runtime.worker.loop import main

if __name__ == "__main__":
    # torch counts the machine's cores otherwise, and the slots would fight for them. On a
    # cluster the allocation says which cores are ours.
    threads = os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    torch.set_num_threads(int(threads))
    main(Path(sys.argv[1]))
