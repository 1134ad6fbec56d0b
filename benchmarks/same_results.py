"""Two commits give the same results: every file, every row, every score.

``same_results.py --old DIR [--new DIR]`` runs the same chains of commands with the ``em-blocks`` of two
checkouts, each with an environment of its own in ``.venv``: the demo; the FIB-SEM cube of the README
from images to scores, cleaned and with a pyramid (``EM_BLOCKS_DATA``); and a generated volume from raw
to synapses, clefts, scores and a connectome. Compared are all files of the outputs (bytes; JSON without
times and paths), all rows of the database but workers (fingerprints and configs of runs, checksums of
blocks, synapses, clefts, scores), and what commands print as JSON.

``--save FILE`` keeps what the old commit gave, ``--against FILE`` compares with that, so it need not
run again. ``--resume`` starts every blockwise command with the old commit, kills all of its processes
(``kill -9``, the database too) when half of its blocks are done, and repeats it with the new one,
without any option: it must do exactly what is missing, and the end must be that of an undisturbed old
run.

"value" is the number of differences, "against" 0.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from parts.checkouts import Checkout, CommandFailed
from parts.same_chains import CHAINS, Chain, Command, prepare
from parts.same_record import Record, differences, of_all_starts, taken
from parts.same_resume import Resumed

SHOWN = 40
HERE = Path(__file__).resolve().parents[1]
Records = dict[str, Record]
Run = Callable[[Command], str]


def results(chain: Chain, checkout: Checkout, run: Run, *others: Path) -> Record:
    """Run all commands of a chain; what they leave and print. `others` are checkouts that took part."""
    answers = {}
    for command in chain.commands:
        begin = time.monotonic()
        answer = run(command)
        if "--json" in command.words:
            answers[command.name] = answer
        print(f"    {time.monotonic() - begin:5.1f} s  {command.name[:100]}", flush=True)
    config = Command(chain.database).arguments(checkout.folder)
    with checkout.database(config) as database:
        return taken(checkout.folder, (checkout.path, *others), database, answers)


def undisturbed(name: str, path: Path, folder: Path) -> Record:
    """Return the results of a chain with one checkout."""
    checkout = Checkout(path, folder)
    prepare(folder, path)
    print(f"{name}, {path}:", flush=True)
    try:
        return results(
            CHAINS[name], checkout, lambda command: checkout.run(command.arguments(folder))
        )
    finally:
        checkout.kill()


def resumed(name: str, old: Path, new: Path, folder: Path, expected: Record) -> Record:
    """Return the results of a chain, every command begun by one checkout and finished by the other."""
    both = Resumed(CHAINS[name], Checkout(old, folder), Checkout(new, folder), expected)
    prepare(folder, old)
    print(f"{name}, begun by {old}, finished by {new}:", flush=True)
    try:
        return results(CHAINS[name], both.new, both.run, both.old.path)
    finally:
        both.old.kill()


def compared(name: str, old: Path, new: Path, folder: Path, expected: Record, resume: bool) -> list[str]:
    """Run a chain with the new checkout; its differences, of which the first are printed."""
    try:
        if resume:
            found = of_all_starts(resumed(name, old, new, folder, expected))
            lines = differences(found, of_all_starts(expected))
        else:
            lines = differences(undisturbed(name, new, folder), expected)
    except CommandFailed as error:
        lines = [str(error)]
    print(f"{name}: {len(expected)} files, rows and answers, {len(lines) or 'no'} differences")
    for line in lines[:SHOWN]:
        print(f"  {line}", flush=True)
    return lines


@click.command()
@click.option("--old", type=click.Path(exists=True, path_type=Path), help="Checkout of the old commit.")
@click.option("--new", type=click.Path(exists=True, path_type=Path), default=HERE,
              help="Checkout of the new one; default: this one.")
@click.option("--save", type=click.Path(path_type=Path), help="Keep the results of the old one there.")
@click.option("--against", type=click.Path(exists=True, path_type=Path), help="Saved results.")
@click.option("--resume", is_flag=True, help="Begin with the old one, finish with the new one.")
@click.option("--chain", "names", multiple=True, type=click.Choice(list(CHAINS)),
              default=tuple(CHAINS), help="Only these; may be repeated.")
def main(
    old: Path | None, new: Path, save: Path | None, against: Path | None, resume: bool,
    names: tuple[str, ...],
) -> None:
    if old is None and (against is None or resume):
        raise click.UsageError("--old is needed; without --resume, --against may stand instead")
    expected: Records = json.loads(against.read_text()) if against else {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in names if against is None else ():
            expected[name] = undisturbed(name, old, root / "old" / name)
        if save:
            save.write_text(json.dumps(expected, indent=1, sort_keys=True))
        wrong = [
            line for name in names
            for line in compared(name, old, new, root / "new" / name, expected[name], resume)
        ]
    n = sum(len(expected[name]) for name in names)
    title = "begun by the old commit and finished by the new one" if resume else "old and new commit"
    print(json.dumps({"name": f"differences, {title}", "value": len(wrong), "unit": f"of {n} results",
                      "against": 0, "ratio": round(len(wrong) / n, 4)}))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
