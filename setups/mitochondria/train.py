"""Train this setup; takes the options of `em-blocks train`."""
import sys
from pathlib import Path

from em_blocks.pipelines.train import main

main([str(Path(__file__).parent), *sys.argv[1:]])
