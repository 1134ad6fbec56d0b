"""What a commit records."""

import subprocess
import sys

from em_blocks.db.commits import peak_memory_mb


def test_peak_memory_is_not_that_of_the_process_that_started_us():
    child = "from em_blocks.db.commits import peak_memory_mb; print(peak_memory_mb())"
    parent = (
        "import subprocess, sys\n"
        "ballast = b'x' * 400_000_000\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    assert 10 < int(done.stdout) < 300
    assert peak_memory_mb() > 10
