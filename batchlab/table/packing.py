"""Source → packed table: validated, encoded, row-major float32, memory-mapped, keyed by a digest of content and encoding."""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from batchlab.errors import BadInput
from batchlab.sources.base import BadLine, Reading, Source
from batchlab.table import contract as contracts
from batchlab.table import sequence
from batchlab.table.columns import CheckRule, Columns, check_columns
from batchlab.table.contract import Contract
from batchlab.table.finishing import facts_of, is_unique, settled_target
from batchlab.table.limits import check_features, check_target, check_weights
from batchlab.table.plan import planned
from batchlab.table.portions import Packer, exact_precision
from batchlab.table.schema import VERSIONS, ColumnFacts, PackedTable, Schema
from batchlab.table.target import Target
from batchlab.table.unlabelled import check_labelled, unlabelled_note
from batchlab.table.writing import Draft, TooManyBadRows, check_space, first_of, writing_under

if TYPE_CHECKING:
    import pyarrow as pa

Item = TypeVar("Item")
VERSION = 3
"""Counts the meanings of a packed table; a table of another version is packed anew."""
LOOK_SECONDS = 0.5
MOST_VALUES = 2**22
"""A portion holds at most so many values, that memory does not grow with the number of columns."""
BAD_LINE = "line cannot be cut into columns"
PLAIN_CSV = "delimiter ',', encoding utf-8"


@dataclass(frozen=True)
class Listener:
    """Is told how far packing is: `on_share` what is done and its share, `on_estimate` a sentence on size and time."""

    on_share: Callable[[str, float], None] = lambda label, share: None
    on_estimate: Callable[[str], None] = lambda text: None


SILENT, LENIENT = Listener(), CheckRule()


@dataclass(frozen=True)
class Job:
    """A table to be packed: which rows, by what rules, and where it goes. `contract_path` is None where none is kept."""

    source: str
    reading: Reading
    columns: Columns
    tables: Path
    digest: str
    contract: Contract | None
    contract_path: Path | None
    rule: CheckRule
    listener: Listener


def pack(
    source: Source, columns: Columns, tables: Path, seed: int = 0, rule: CheckRule = LENIENT, listener: Listener = SILENT
) -> PackedTable:
    """Read, validate and encode `source` into a folder of `tables` named by its digest; reuse that folder when it is there.

    Memory is bounded whatever the number of rows. Rows that cannot be used are kept, with the reason, in `quarantine.parquet` beside
    the table. Raises BadInput for columns and targets that cannot be used, for a table that breaks its contract, and where more than
    `rule.largest_quarantined` of the rows cannot be used. A killed pass leaves only a draft, which the next one removes.
    """
    with writing_under(tables):
        reading = source.opened(seed, tables / ".reading")
        path = contracts.path_of(source, columns.target, tables, columns.missing)
        return _opened_or_packed(source.name, reading, columns, tables, path, rule, listener)


def pack_read(reading: Reading, name: str, columns: Columns, tables: Path, rule: CheckRule = LENIENT) -> PackedTable:
    """Do as `pack` does with rows that were opened already and keep no contract; `name` is what people call them."""
    with writing_under(tables):
        return _opened_or_packed(name, reading, columns, tables, None, rule, SILENT)


def _opened_or_packed(
    name: str, reading: Reading, columns: Columns, tables: Path, path: Path | None, rule: CheckRule, listener: Listener
) -> PackedTable:
    """Open the table if it is there, else pack it; keep its contract at the path, and hold it to the rule."""
    check_columns(reading.schema, columns)
    contract = None if path is None else contracts.opened(path)
    digest = _name_of(reading, columns, tables, contract, path)
    if not (tables / digest / "schema.json").exists():
        _pack(Job(name, reading, columns, tables, digest, contract, path, rule, listener))
    table = PackedTable.open(tables / digest)
    if path is not None and contract is None:
        _keep_contract(table, path)
    counts, labelled = table.schema.quarantined, table.schema.source_rows - table.schema.unlabelled
    _check_quarantine(counts, labelled, rule, table.quarantine, contracts.demanded(counts, contract, path))
    return table


def packed_before(source: Source, columns: Columns, tables: Path, seed: int = 0) -> PackedTable | None:
    """Return the table that `pack` would open for the source as it is now; None where it would have to pack one.

    No row is read of files whose content is known since the last time.
    """
    with writing_under(tables):
        reading = source.opened(seed, tables / ".reading")
        path = contracts.path_of(source, columns.target, tables, columns.missing)
        digest = _name_of(reading, columns, tables, None if path is None else contracts.opened(path), path)
        return PackedTable.open(tables / digest) if (tables / digest / "schema.json").exists() else None


def _name_of(reading: Reading, columns: Columns, tables: Path, contract: Contract | None, path: Path | None) -> str:
    """Return the digest of what is read and how it is encoded; raises BadInput for columns that break the contract."""
    plain = _digest(reading.fingerprint, columns)
    if contract is None or path is None:
        return plain
    contracts.check_kinds(contract, (), reading.schema.names, (), path)
    own = contracts.opened(tables / plain / "contract.json")
    return plain if contract == own and contract.inferred_from == plain else _digest(plain, contract)


def _keep_contract(table: PackedTable, path: Path) -> None:
    """Put the contract that was inferred from the table where it is kept from now on."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    beside.write_text((table.path / "contract.json").read_text())
    beside.replace(path)


def _digest(content: str, encoding: Columns | Contract) -> str:
    without = {"window"} if isinstance(encoding, Columns) and encoding.window is None else set()
    return hashlib.sha256(f"{VERSION} {content} {encoding.model_dump_json(exclude=without)}".encode()).hexdigest()[:16]


def _pack(job: Job) -> None:
    """Pack the table, and infer its contract where there is none yet."""
    plan = planned(job.reading, job.columns, job.listener.on_share)
    if job.contract is not None and job.contract_path is not None:
        columns, forced = (*plan.features, plan.target), job.columns.categorical
        contracts.check_kinds(job.contract, columns, job.reading.schema.names, forced, job.contract_path)
    with Draft(job.tables) as draft:
        packer = Packer(plan, job.columns, job.contract, draft, exact_precision(job.reading.schema, plan.features))
        try:
            _pass(job, packer)
        finally:
            packer.close()
            _give_back()
        _check_rows(job, packer)
        target = _finish(job, packer, draft)
        as_written = {} if job.columns.window is not None else packer.files  # in sequence, all are written anew
        draft.become(job.digest, (file for part, file in as_written.items() if part != "target" or not target.classes))


def _pass(job: Job, packer: Packer) -> None:
    """Pack all rows; unless it is over by then, say after a moment what the whole will take, and check that the disk has room for it."""

    def on_bad_line(bad: BadLine) -> None:
        packer.quarantine.add(BAD_LINE, f"{bad.file}: {bad.reason}" if bad.file else bad.reason, bad.text, line=bad.line)

    began, before, estimated = 0.0, 0, False
    if job.reading.row_count is not None:
        _check_space(job, packer, job.reading.row_count)
    for portion, share in one_ahead(_portions(job.reading, packer.width, on_bad_line)):
        packer.add(portion)
        job.listener.on_share(f"packing row {packer.source_rows:,}", share)
        if not before:  # the first portion also loads what is loaded once
            began, before = time.perf_counter(), packer.source_rows
        elif not estimated and share > 0 and time.perf_counter() - began > LOOK_SECONDS:
            rows, estimated = job.reading.row_count or int(packer.source_rows / share), True
            seconds = (time.perf_counter() - began) / (packer.source_rows - before) * rows
            size = _check_space(job, packer, rows)
            job.listener.on_estimate(f"Packing about {rows:,} rows × {packer.width} columns: {size / 1e9:.2g} GB, about {seconds:,.0f} s.")


def _give_back() -> None:
    """Return to the system what Arrow keeps for further batches."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same items, the next one made in the background meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="reading") as reader:
        waiting = reader.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = reader.submit(next, items, None)
            yield item


def _check_space(job: Job, packer: Packer, rows: int) -> int:
    """Return the bytes that so many packed rows take; raise BadInput unless the disk has room for those not written yet."""
    a_row = 4 * packer.width + 8
    check_space(job.tables, (rows - packer.rows) * a_row, f"packing about {rows:,} rows × {packer.width} columns")
    return rows * a_row


def _portions(reading: Reading, width: int, on_bad_line: Callable[[BadLine], None]) -> "Iterator[tuple[pa.RecordBatch, float]]":
    """Yield portions of bounded size, and how much of the source is read with each."""
    most = max(1, MOST_VALUES // max(1, width))
    for batch in reading.batches(on_bad_line):
        for start in range(0, batch.num_rows, most):
            yield batch.slice(start, most), reading.share_read


def _check_rows(job: Job, packer: Packer) -> None:
    """Raise BadInput when too many rows cannot be used; they are kept where the error says."""
    counts, kept = dict(packer.quarantine.counts), job.tables / f"quarantine-{job.digest}.parquet"
    labelled = packer.source_rows - packer.unlabelled.total() + counts.get(BAD_LINE, 0)
    check_labelled(job.columns.target, packer.unlabelled.total(), labelled)
    demanded = contracts.demanded(counts, job.contract, job.contract_path)
    try:
        _check_quarantine(counts, labelled, job.rule, kept, demanded, packer.quarantine.path)
    except BadInput:
        shutil.move(packer.quarantine.path, kept)
        raise
    kept.unlink(missing_ok=True)


def _check_quarantine(
    counts: dict[str, int], rows: int, rule: CheckRule, kept: Path | None, demanded: str, examples: Path | None = None
) -> None:
    """Raise TooManyBadRows when more rows cannot be used than may be, with the first of those in the file `examples` (else `kept`);
    `demanded` says what the contract that some break asks for."""
    bad = sum(counts.values())
    if rows and (bad == rows or bad / rows > rule.largest_quarantined):
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in sorted(counts.items(), key=lambda item: -item[1])[:10])
        allowed = f", more than {100 * rule.largest_quarantined:g}% (checks.largest_quarantined)" if rule.largest_quarantined < 1 else ""
        raise TooManyBadRows(
            f"{bad:,} of {rows:,} rows ({100 * bad / rows:.1f}%) cannot be used{allowed}: {reasons}.{first_of(examples or kept)} "
            f"They are in '{kept}', each with its reason.{demanded}",
            kept,
        )


def _finish(job: Job, packer: Packer, draft: Draft) -> Target:
    """Check the whole, and write what stands beside the rows, the contract that the table is under among it; return the target, whose file
    has been written anew where it has classes."""
    check_features(packer.features, packer.figures)
    check_target(packer.plan.target.name, packer.target_figures)
    if packer.plan.weight is not None:
        check_weights(packer.plan.weight.name, packer.weights)
    target = settled_target(packer, job.columns, draft)
    sequenced = _sequenced(job, packer, draft)
    facts, unique = facts_of(packer, target), job.columns.key is not None and is_unique(draft.path / "key.npy")
    if job.contract is not None and job.contract_path is not None:
        contracts.check_missing(job.contract, facts, job.contract_path)
        contracts.check_key(job.contract, unique, str(job.columns.key), job.contract_path)
    own = job.contract or contracts.inferred(facts, job.columns.target, job.digest, unique, job.columns.time)
    schema = Schema(
        source=job.source,
        rows=packer.rows if sequenced is None else sequenced.rows,
        columns=tuple(packer.features),
        target=target,
        digest=job.digest,
        quarantined=dict(packer.quarantine.counts),
        unlabelled=packer.unlabelled.total() + (0 if sequenced is None else sequenced.targetless),
        sequence=None if sequenced is None else sequenced.sequence,
        notes=(
            *_read_as(job.reading.description),
            *job.reading.notes,
            *packer.plan.notes,
            *unlabelled_note(packer),
            *packer.code_notes(),
            *(() if sequenced is None else sequence.notes(sequenced)),
            *_remarks(job, facts),
        ),
    )
    if job.reading.versions is not None:
        np.save(draft.path / VERSIONS, job.reading.versions)
    (draft.path / "contract.json").write_text(own.model_dump_json(indent=2))
    (draft.path / "statistics.json").write_text(json.dumps([item.model_dump() for item in facts], indent=2))
    (draft.path / "schema.json").write_text(schema.model_dump_json(indent=2))
    return target


def _sequenced(job: Job, packer: Packer, draft: Draft) -> sequence.Sequenced | None:
    """Put the draft's rows in sequence where windows of them are asked for."""
    rule = job.columns.window
    if rule is None:
        return None
    return sequence.put_in_sequence(draft, rule, packer.plan.time, job.columns.group, job.columns.target, packer.holes)


def _remarks(job: Job, facts: Sequence[ColumnFacts]) -> list[str]:
    """Say which columns are constant, which are new to the contract, and where that is when rows have broken it."""
    constant = [
        f"column '{item.name}' is constant: {item.minimum:g}" for item in facts if item.minimum is not None and item.minimum == item.maximum
    ]
    if job.contract is None:
        return constant
    known = job.contract.columns
    new = [
        f"column '{item.name}' is not in the contract '{job.contract_path}'; it is a feature now"
        for item in facts
        if item.name not in known
    ]
    return [*constant, *new, f"the table is held to the contract '{job.contract_path}'"]


def _read_as(description: str) -> tuple[str, ...]:
    """Return what was found out about the format as a note, unless it is what everybody expects."""
    return () if description in ("", PLAIN_CSV) else (f"read with {description}",)
