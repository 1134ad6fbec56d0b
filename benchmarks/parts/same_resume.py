"""Commands that are begun by one checkout, killed half-way, and finished by another one."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from parts.checkouts import Checkout, CommandFailed, running_database
from parts.same_chains import Chain, Command
from parts.same_record import Record


@dataclass
class Resumed:
    """Both checkouts, with one folder of results.

    Parameters
    ----------
    chain : Chain
    old, new : Checkout
        Which begins, which finishes.
    expected : Record
        Of an undisturbed run: how many blocks there are.
    """

    chain: Chain
    old: Checkout
    new: Checkout
    expected: Record

    def run(self, command: Command) -> str:
        """Do a command, a blockwise one in two parts. Raises `CommandFailed`."""
        arguments = command.arguments(self.new.folder)
        if command.runs is None:
            return self.new.run(arguments)
        total = sum(
            name.startswith("row blocks ") and bool(re.fullmatch(command.runs, block["run"]))
            for name, block in self.expected.items()
        )
        self._begin(command, arguments, total)
        before = self._done(command)
        answer = self.new.run(arguments)
        again = [key for key, document in self._done(command).items()
                 if key in before and document != before[key]]
        if not 0 < len(before) < total or again:
            raise CommandFailed(
                f"{command.name}: {len(before)} of {total} blocks were done when it was killed, and "
                f"{len(again)} of them were done again: {again[:5]}"
            )
        print(f"           killed with {len(before)} of {total} blocks done", flush=True)
        return answer

    def _begin(self, command: Command, arguments: list[str], total: int) -> None:
        """Start the command with the old checkout, kill everything when half of it is done."""
        process = self.old.start(arguments)
        query = {"state": "done", "run": {"$regex": f"^(?:{command.runs})$"}}
        with running_database(self.old.folder / self.chain.home, process) as (database, mongod):
            while process.poll() is None and database.blocks.count_documents(query) < total / 2:
                time.sleep(0.001)
            self.old.kill(mongod, process.pid)  # nothing is recorded from here on
        process.communicate()

    def _done(self, command: Command) -> dict[str, dict]:
        """Documents of the blocks that are done."""
        config = Command(self.chain.database).arguments(self.old.folder)
        with self.old.database(config) as database:
            found = database.blocks.find({"state": "done", "run": {"$regex": f"^(?:{command.runs})$"}})
            return {document["_id"]: document for document in found}
