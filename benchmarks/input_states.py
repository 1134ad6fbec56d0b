"""Check that no verb gives a wrong result silently, whatever happens to its inputs.

``input_states.py [--seeds N] [--workers N]`` takes every verb on N random walks through the states of
its inputs (done, partly done, quarantined, masked, blocks rewritten with other values, moved,
replaced, the database deleted, foreign data changed in place): after every state the verb refuses,
or has the result of a fresh run on the completed input. "value" is the number of walks with another
result, "against" 0.

The walks are the tests tests/test_input_states*.py. Blocks are done in their process, without workers;
everything else is as in a command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import click

PROJECT = Path(__file__).resolve().parents[1]


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
def main(seeds: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", str(workers), f"--junitxml={report}",
             *map(str, sorted((PROJECT / "tests").glob("test_input_states*.py")))],
            cwd=PROJECT, env={**os.environ, "EM_BLOCKS_STATE_SEEDS": str(seeds)}, stdout=sys.stderr,
            check=False,  # failed walks are the figure
        )
        suite = ElementTree.parse(report).getroot().find("testsuite")
    wrong = int(suite.get("failures")) + int(suite.get("errors"))
    walks = int(suite.get("tests"))
    if not walks:
        raise click.ClickException("no walk was made")
    print(json.dumps({
        "name": f"walks through the states of inputs with a wrong result, of {walks}", "value": wrong,
        "unit": "walks", "against": 0, "ratio": wrong / walks,
    }))


if __name__ == "__main__":
    main()
