"""What a run reads: whether it is complete, and whether it still is what it was.

An input made by em_blocks is known by its run: the ledger beside it says which blocks it has, and
in which start of the run each was stored. Any other volume is known by checksums of a sample of its
pieces. Both are kept in the run's document; where a path leads is no part of it.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from em_blocks.config import VolumeInput, VolumeRef, path_of
from em_blocks.db.runs import DONE, RunStore
from em_blocks.errors import ChangedInputError
from em_blocks.geometry import BlockGrid, Box, Frame, Triple, triple
from em_blocks.outputs.table import table_fingerprint
from em_blocks.runtime.runs.complete import refuse_incomplete_rows, require_done
from em_blocks.runtime.runs.leases import is_alive
from em_blocks.runtime.runs.preflight import Checked, refuse_incomplete
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.masks import masked_blocks
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import detect
from em_blocks.volumes.stores.ledger import Ledger, packed, read_ledger, unpacked
from em_blocks.volumes.stores.signature import SAMPLE_BYTES, Signature, sign
from em_blocks.volumes.touching import touching

MASKED = "masked blocks"


class Difference(NamedTuple):
    """How an input differs from what a run was made of.

    Attributes
    ----------
    refusal : str or None
        Why the run must not go on with it.
    stale : (z, y, x) bool array
        Blocks of the run that are to be done again for it.
    note : str or None
        What the user is told although nothing is refused.
    """

    refusal: str | None
    stale: np.ndarray
    note: str | None = None


@dataclass(frozen=True)
class Input:
    """One input as it is now.

    Attributes
    ----------
    name, path : str
    fingerprint : str or None
        Of the run that made it, as its attributes say.
    ledger : Ledger or None
        None for what no run of em_blocks made, or an old one.
    signature : Signature or None
        None for folders of tables, and for what an earlier step of this command makes.
    frame : Frame or None
        Where the voxels of the signature lie.
    ref : VolumeRef or None
        How the config names it.
    """

    name: str
    path: str
    fingerprint: str | None = None
    ledger: Ledger | None = None
    signature: Signature | None = None
    frame: Frame | None = None
    ref: VolumeRef | None = None

    @property
    def content_id(self) -> str:
        """The same for inputs of the same contents, wherever they lie."""
        return self.ledger.content_id if self.ledger is not None else digest(self.document())

    def document(self) -> dict:
        """Return what the database keeps of it."""
        signature = self.signature and self.signature.to_document()
        if self.ledger is None:
            return {"fingerprint": self.fingerprint, "signature": signature}
        return {
            "run": self.ledger.run, "run_id": self.ledger.run_id,
            "fingerprint": self.ledger.fingerprint, "content_id": self.ledger.content_id,
            "generation": packed(self.ledger.generation.astype("<u4").tobytes()),
            "signature": signature,
        }

    def holes(self, task: BlockwiseTask, grid: BlockGrid) -> np.ndarray:
        """Return a bool array (z, y, x): blocks of a task that read what is missing here."""
        if self.ledger is None:
            return np.zeros(grid.shape, bool)
        missing = self.ledger.missing
        if self.ledger.state == "open" and not missing.any():
            # Blocks are due again, as `verify` leaves them, and only another database knows which.
            missing = np.ones_like(missing)
        return touching(grid, task.read_reach(), self.ledger.grid, missing)

    def compare(
        self, then: dict, task: BlockwiseTask, grid: BlockGrid, done: np.ndarray
    ) -> Difference:
        """Compare with the `document` of an earlier start; `done` are the blocks made of that."""
        if self.ledger is not None:
            return self._compare_run(then, task, grid, done)
        if "run_id" in then:
            return Difference(
                f"{self.name} ({self.path}) was written by run {then['run']!r} and no longer says so",
                np.zeros(grid.shape, bool),
            )
        if then["fingerprint"] != self.fingerprint:
            return self._refused(grid, "was made with other settings")
        if self.signature is None or then["signature"] is None:
            return Difference(None, np.zeros(grid.shape, bool))
        return self._compare_pieces(then["signature"], task, grid, done)

    def _compare_run(
        self, then: dict, task: BlockwiseTask, grid: BlockGrid, done: np.ndarray
    ) -> Difference:
        none = np.zeros(grid.shape, bool)
        if "run_id" not in then:  # written before there were ledgers
            same = then["fingerprint"] == self.ledger.fingerprint
            return Difference(None, none) if same else self._refused(grid, "was made by another run")
        if then["content_id"] != self.ledger.content_id:
            return self._refused(grid, (
                f"was made by run {self.ledger.run!r} with other settings or from other data than what "
                f"run {then['run']!r} had made"
            ))
        before = np.frombuffer(unpacked(then["generation"]), "<u4")
        changed = np.ones(self.ledger.grid.shape, bool)
        if then["run_id"] == self.ledger.run_id and before.size == changed.size:
            changed = before.reshape(changed.shape) != self.ledger.generation
        if (tampered := self._tampered(then.get("signature"), changed)) is not None:
            return self._refused(grid, tampered)
        stale = touching(grid, task.read_reach(), self.ledger.grid, changed) & done
        if not stale.any():
            return Difference(None, stale)
        return Difference(None, stale, f"{int(changed.sum())} blocks of {self.name} were stored anew")

    def _tampered(self, then: dict | None, redone: np.ndarray) -> str | None:
        """Return what is wrong with values that no start of the run stored; `redone`: one did."""
        if then is None or self.signature is None:
            return None
        boxes = Signature.from_document(then).changed(self.signature)
        if not boxes:
            return None
        excused = touching(self._pieces, (0, 0, 0), self.ledger.grid, redone)
        left = [box for box in boxes if not excused[self._place(box)]]
        if not left:
            return None
        return (
            f"{self._differs(left)}, which its run {self.ledger.run!r} did not store (`em-blocks "
            "verify` on the config of that run has damaged blocks done again)"
        )

    def _compare_pieces(
        self, then: dict, task: BlockwiseTask, grid: BlockGrid, done: np.ndarray
    ) -> Difference:
        boxes = Signature.from_document(then).changed(self.signature)
        if boxes is None:
            return self._refused(grid, "is stored in another shape or in other chunks")
        if not boxes:
            return Difference(None, np.zeros(grid.shape, bool))
        readers = touching(grid, task.read_reach(), self._pieces, self._marked(boxes))
        if self.signature.whole and not (readers & done).any():
            return Difference(None, np.zeros(grid.shape, bool), (
                f"{self.name} holds other values than before, but only where no block is done"
            ))
        return self._refused(grid, self._differs(boxes))

    def _differs(self, boxes: list[Box]) -> str:
        roi = self.frame.to_roi(boxes[0])
        return (
            f"holds other values than when the run began, in {len(boxes)} of "
            f"{len(self.signature.pieces)} pieces that were compared, the first at voxel "
            f"{boxes[0].offset} ({tuple(round(o, 3) for o in roi.offset)} nm, zyx)"
        )

    @property
    def _pieces(self) -> BlockGrid:
        return BlockGrid(self.frame, self.signature.shape, self.signature.piece_shape)

    def _place(self, box: Box) -> Triple:
        """Return the index of the piece that begins where `box` does."""
        return tuple(
            o // p for o, p in zip(box.offset, self.signature.piece_shape, strict=True)
        )

    def _marked(self, boxes: list[Box]) -> np.ndarray:
        """Return a bool array (z, y, x) over the pieces: those that begin where `boxes` do."""
        marked = np.zeros(self._pieces.shape, bool)
        for box in boxes:
            marked[self._place(box)] = True
        return marked

    def _refused(self, grid: BlockGrid, why: str) -> Difference:
        return Difference(f"{self.name} ({self.path}) {why}", np.zeros(grid.shape, bool))


@dataclass(frozen=True)
class Inputs:
    """All inputs of a task, as they are now."""

    task: BlockwiseTask
    grid: BlockGrid
    found: Sequence[Input]
    masked: np.ndarray

    def again(self, made_here: Mapping[str, Ledger], store: RunStore) -> Self:
        """Look at the same inputs again: by `made_here`, or as another run left them meanwhile."""
        found = []
        for before in self.found:
            ledger = made_here.get(before.path)
            if ledger is None and (stored := read_ledger(before.path)) is not None:
                ledger = confirmed(stored, store)
            if before.ledger is not None and ledger is not None:
                before = replace(before, ledger=_placed(ledger, before.ref))
            found.append(before)
        return replace(self, found=found)

    def document(self) -> dict:
        """Return what the database keeps of it."""
        return {
            **{_key(found.name): found.document() for found in self.found}, MASKED: self._masked_crc
        }

    def content_id(self, fingerprint: str) -> str:
        """Return what decides the outputs' contents: settings, and what the inputs hold."""
        return digest({
            "fingerprint": fingerprint, "inputs": {f.name: f.content_id for f in self.found}
        })

    def holes(self) -> dict[str, np.ndarray]:
        """Return blocks of the task that read what is missing, by input; only those with any."""
        found = {source.name: source.holes(self.task, self.grid) for source in self.found}
        return {name: blocks for name, blocks in found.items() if blocks.any()}

    def compare(self, then: dict, done: np.ndarray) -> list[Difference]:
        """Return each input against the `document` of an earlier start."""
        differences = [
            found.compare(then[_key(found.name)], self.task, self.grid, done)
            for found in self.found if _key(found.name) in then
        ]
        if then[MASKED] != self._masked_crc:
            why = "the mask leaves out other blocks than before"
            differences.append(Difference(why, np.zeros(self.grid.shape, bool)))
        return differences

    @property
    def _masked_crc(self) -> int:
        return zlib.crc32(np.packbits(self.masked))


def look_at(
    task: BlockwiseTask, checked: Checked, made_here: Mapping[str, Ledger], store: RunStore,
    seen: dict[str, Input] | None = None,
) -> Inputs:
    """Return the inputs of a task.

    Parameters
    ----------
    made_here : mapping of str to Ledger
        What earlier steps of this command will have made when this one reads it, by path.
    store : RunStore
        Of the task; where its database also has the run of an input, that decides what is done.
    seen : dict of str to Input, optional
        Inputs that earlier steps of this command looked at, by what names them; the others are added.

    Raises
    ------
    IncompleteInputError
        If an input lacks blocks, unless the task skips them.
    """
    found, seen = [], {} if seen is None else seen
    for name, ref in task.sources().items():
        path = path_of(ref)
        if path in made_here:
            ledger = made_here[path]
            ledger = _placed(ledger, ref)
            found.append(Input(name, path, ledger.fingerprint, ledger, ref=ref))
        elif (source := seen.get(repr(ref)) or _look(name, ref, store)) is not None:
            seen[repr(ref)] = source
            found.append(replace(source, name=name))
    for source in found:
        if source.path not in made_here and source.ledger is not None:
            refuse_incomplete(task, source.name, source.path, source.ledger)
    refuse_incomplete_rows(task, store)
    return Inputs(task, checked.grid, found, checked.masked)


def require_unchanged(task: BlockwiseTask, store: RunStore) -> None:
    """Raise `ChangedInputError` if blocks of the run of `store` were made of what inputs no longer hold.

    Parameters
    ----------
    task : BlockwiseTask
        As the run was made; its inputs are complete.
    """
    contents = store.load().get("contents")
    if contents is None:  # made by an older version
        return
    grid = task.grid()
    masked = masked_blocks(task.mask, grid) if task.mask else np.zeros(grid.shape, bool)
    inputs = look_at(task, Checked(grid, {}, masked), {}, store)
    found = inputs.compare(contents, store.mask(grid.shape, DONE))
    why = [d.refusal or d.note for d in found if d.refusal or d.stale.any()]
    if why:
        raise ChangedInputError(
            f"What run {task.run!r} has made is outdated: {'; '.join(why)}. It would be compared with "
            "data that it was not made of. Run its command again first."
        )


def _look(name: str, ref: str | VolumeInput, store: RunStore) -> Input | None:
    path = path_of(ref)
    ledger = read_ledger(path)
    if ledger is not None:
        ledger = _placed(confirmed(ledger, store), ref)
    if detect(path) is not None:
        found = _signed(name, ref, ledger)
    else:
        made_by = table_fingerprint(path) if ledger is None else ledger.fingerprint
        found = made_by and Input(name, path, made_by, ledger, ref=ref)
    if found is not None and ledger is None and found.fingerprint is not None:
        _check_old_run(found, store)
    return found


def _signed(name: str, ref: str | VolumeInput, ledger: Ledger | None) -> Input:
    volume = Volume.open(ref)
    signature = sign(
        lambda box: volume.read(box), volume.shape, volume.piece_shape,
        volume.dtype.itemsize * (volume.channels or 1),
        # Of a run's own output only changes behind its back are looked for.
        sample_bytes=SAMPLE_BYTES if ledger is None else SAMPLE_BYTES // 8,
    )
    return Input(
        name, path_of(ref), volume.attributes.get("fingerprint"), ledger, signature, volume.frame, ref
    )


def _placed(ledger: Ledger, ref: VolumeRef | None) -> Ledger:
    """Return a ledger whose blocks lie where the config says that the volume does.

    By the place that the volume states, other blocks than those that read them would wait, or be stale.
    """
    if not isinstance(ref, VolumeInput) or (ref.voxel_size is None and ref.offset is None):
        return ledger
    told, stated, of_blocks = Volume.open(ref).frame, Volume.open(ref.path).frame, ledger.grid.frame
    larger = [a / b for a, b in zip(told.voxel_size, stated.voxel_size, strict=True)]
    frame = Frame(
        triple(n * size for n, size in zip(larger, of_blocks.voxel_size, strict=True)),
        triple(begin + n * (o - s) for begin, n, o, s in
               zip(told.offset, larger, of_blocks.offset, stated.offset, strict=True)),
    )
    return ledger.replaced(grid=replace(ledger.grid, frame=frame))


def _check_old_run(found: Input, store: RunStore) -> None:
    """Raise `IncompleteInputError` for the output of an incomplete run that left no ledger.

    Only the database can tell, if it is the one of that run.
    """
    made = {"fingerprint": found.fingerprint, "run_id": None}  # None: or no such field
    if (run := store.runs.find_one(made, {"_id": 1})) is not None:
        require_done(RunStore(store.client, store.database.name, run["_id"]), f"The {found.name}")


def confirmed(ledger: Ledger, store: RunStore) -> Ledger:
    """Return a ledger as the database of `store` confirms it, if that has its run; else as it is."""
    other = RunStore(store.client, store.database.name, ledger.run)
    run = other.load()
    if run is None or run.get("run_id") != ledger.run_id:
        return ledger
    if ledger.state == "closed" and other.n_done() == int(ledger.done.sum()):
        return ledger
    generation = other.generations(ledger.grid.shape)
    state = "open" if is_alive(run["lease"], other.now()) else "closed"
    return ledger.replaced(generation=generation, state=state)


def digest(values: dict) -> str:
    """Return the sha256 of JSON values, as hex."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _key(name: str) -> str:
    """Return `name` as a key of the database, where a dot would open a level."""
    return name.replace(".", "_")
