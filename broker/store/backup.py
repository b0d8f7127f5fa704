"""A copy of the state that another disk keeps, and what has to be believed less once it is put back.

Rules:
1. A backup is one whole file of one moment, made while the broker runs. It is marked: no broker opens it.
2. What was running in it may have gone on after it: each write among it is in doubt.
3. A key that it does not know, or that was free in it, may have been used since. It is refused while the time
   of grace lasts; only an unknown key that its owner says is younger than the restore is taken.
4. The epoch goes on past every number that may have been used since.
5. What was in the place before is kept beside it, and whoever has it open is stale.
6. A brake is in force if it was in the backup, or in what was in the place before and can be read: restoring
   must not let in again whoever was stopped since.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from broker.model import Brake, CallState
from broker.store import call_table
from broker.store.database import connect, sync_folder
from broker.store.epochs import SECOND_MICROS, Watch, find_newest
from broker.store.moments import from_micros, to_micros
from broker.store.options import DAY_SECONDS, Clock, StoreOptions, read_clock
from broker.store.records import AuditEvent, Epoch, StoreError
from broker.store.registry_tables import add_brake, append_audit, select_brakes
from broker.store.schema import check_schema, migrate, read_migrations
from broker.store.sqlite import begin, when_free
from toolcrib.v1.reasons_pb2 import Reason
from tools.contract import Effect

# More starts than there can be between a backup and its restore, where nobody can say how many there were.
EPOCH_STEP = 1_000_000
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
IN_DOUBT_MESSAGE = (
    "the state was restored from a backup in which this call was still running: it is not known whether the "
    "write happened; do not use another key"
)


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore came to.

    Attributes:
        backup_at: When the backup was made: what is younger is lost.
        in_doubt: How many writes it put in doubt.
        replaced: Where that is now which was in the place before.
    """

    backup_at: datetime
    restored_at: datetime
    in_doubt: int
    replaced: Path | None


async def backup_store(path: Path, to: Path, *, clock: Clock = read_clock) -> datetime:
    """Copy a store, whether a broker runs on it or not, and return the moment that the copy is of.

    Raises:
        StoreError: It cannot be read, the copy cannot be written, or there is something in its place.
    """
    return await asyncio.to_thread(_back_up, path, to, clock)


async def restore_store(
    backup: Path,
    path: Path,
    options: StoreOptions,
    *,
    grace_seconds: float = DAY_SECONDS,
    wait_seconds: float = 0.0,
) -> Restored:
    """Put a backup in place of a store on which no broker runs.

    Args:
        backup: What `backup_store` made; it stays as it is.
        path: The store; it need not be there.
        options: Those of the broker; its clock must be right.
        grace_seconds: How long callers may still ask again for what they asked before the restore.
        wait_seconds: How long to wait for another's epoch to end or expire.

    Raises:
        StoreBusy: A broker has the store.
        StoreError: The backup is none, is damaged, or is younger than the clock says it is now.
    """
    try:
        beside = _make_beside(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be restored: {error}") from error
    try:
        restored = await asyncio.to_thread(_prepare, backup, beside, options)
        old = await when_free(options, wait_seconds, lambda watch: _retire(path, options, watch))
        return await asyncio.to_thread(
            _put_in_place, _Plan(beside, path, restored, old, grace_seconds), options
        )
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path}: cannot be restored: {error}") from error
    finally:
        _remove(beside)


# --- backup ----------------------------------------------------------------------------------------------
def _back_up(path: Path, to: Path, clock: Clock) -> datetime:
    if to.exists():
        raise StoreError(f"{to}: is there already; name another file")
    part: Path | None = None
    try:
        with closing(connect(path, writes=False)) as source:
            check_schema(source, read_migrations())
            part = _make_beside(to)
            now = clock()
            with closing(connect(part, writes=True)) as copy:
                source.backup(copy)
                _check_whole(copy)
                _mark_backup(copy, now)
        _sync(part)
        os.link(part, to)  # fails where something has come there in the meantime
        sync_folder(to.parent)
    except (sqlite3.Error, OSError, StoreError) as error:
        raise StoreError(f"{path}: cannot be backed up: {error}") from error
    finally:
        if part is not None:
            _remove(part)
    return now


def _mark_backup(copy: sqlite3.Connection, now: datetime) -> None:
    row = copy.execute("SELECT backup_at FROM installation").fetchone()
    if row is None or row["backup_at"] is not None:
        raise StoreError("is a backup itself" if row else "no broker ever finished its first start on it")
    copy.execute("UPDATE installation SET backup_at = ?", (to_micros(now),))
    copy.execute("PRAGMA journal_mode = DELETE")


# --- restore ---------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Retired:
    epoch: Epoch
    brakes: Sequence[Brake]


@dataclass(frozen=True, slots=True)
class _Plan:
    beside: Path
    path: Path
    restored: Restored
    old: _Retired | None
    grace_seconds: float


def _prepare(backup: Path, beside: Path, options: StoreOptions) -> Restored:
    """Copy the backup next to its place and see that it is one; nothing else changes yet."""
    shutil.copyfile(backup, beside)
    now = options.clock()
    with closing(connect(beside, writes=True)) as copy:
        _check_whole(copy)
        migrate(copy, read_migrations())
        row = copy.execute("SELECT backup_at FROM installation").fetchone()
        if row is None or row["backup_at"] is None:
            raise StoreError(f"{backup}: is no backup; make one with `toolcrib store backup`")
    backup_at = from_micros(row["backup_at"])
    if now < backup_at:
        raise StoreError(
            f"{backup}: was made at {backup_at.isoformat()}, and the clock says that it is "
            f"{now.isoformat()}; set the clock first: keys are judged by the time of the restore"
        )
    return Restored(backup_at, now, 0, None)


def _retire(path: Path, options: StoreOptions, watch: Watch) -> _Retired | None:
    """Take over what is in the place, so that nobody writes to it any more; None where it cannot be read."""
    if not path.exists():
        return None
    try:
        with closing(connect(path, writes=True)) as old:
            retired = _Retired(begin(old, options, watch).epoch, select_brakes(old))
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return retired
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _DAMAGED:
            raise
        return None  # that is what backups are for


def _put_in_place(plan: _Plan, options: StoreOptions) -> Restored:
    with closing(connect(plan.beside, writes=True)) as copy:
        in_doubt = _doubt(copy, plan, options)
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy.execute("PRAGMA journal_mode = DELETE")
    _sync(plan.beside)
    replaced = _set_aside(plan.path, plan.restored.restored_at)
    plan.beside.replace(plan.path)
    sync_folder(plan.path.parent)
    return replace(plan.restored, in_doubt=in_doubt, replaced=replaced)


def _doubt(copy: sqlite3.Connection, plan: _Plan, options: StoreOptions) -> int:
    """Write, in one transaction, what is not known any more."""
    copy.execute("BEGIN IMMEDIATE")
    old = plan.old if plan.old and plan.old.epoch.installation == _installation(copy) else None
    epoch = _next_epoch(copy, old)
    for brake in old.brakes if old else ():
        add_brake(copy, brake)
    now = plan.restored.restored_at
    micros = to_micros(now)
    copy.execute("INSERT INTO epochs VALUES (?, ?, ?, 0, ?)", (epoch, micros, micros, micros))
    copy.execute(
        "UPDATE installation SET backup_at = NULL, restored_at = ?, restored_epoch = ?, grace_left = ?",
        (micros, epoch, int(plan.grace_seconds * SECOND_MICROS)),
    )
    details = {
        "backup_at": plan.restored.backup_at.isoformat(),
        "epoch": epoch,
        "grace_seconds": plan.grace_seconds,
        "brakes": [brake.brake_id for brake in select_brakes(copy)],
    }
    append_audit(copy, AuditEvent("store.restored", "", "", now, details=details), options)
    running = [kept for kept in call_table.select_running(copy, epoch) if kept.call.effect is not Effect.READ]
    for kept in running:
        call = replace(
            kept.call,
            state=CallState.IN_DOUBT,
            ended=now,
            reason=Reason.REASON_IN_DOUBT,
            message=IN_DOUBT_MESSAGE,
        )
        call_table.replace_call(copy, replace(kept, call=call))
        facts = {
            "was": kept.call.state.value,
            "is": call.state.value,
            "epoch": call.epoch,
            "leases": [lease.facts() for lease in call.leases],
        }
        place = call.tenant, call.environment
        append_audit(copy, AuditEvent("call.adopted", *place, now, call.call_id, details=facts), options)
    copy.execute("COMMIT")
    return len(running)


def _installation(copy: sqlite3.Connection) -> str:
    (installation,) = copy.execute("SELECT id FROM installation").fetchone()
    return str(installation)


def _next_epoch(copy: sqlite3.Connection, old: _Retired | None) -> int:
    newest = find_newest(copy)
    number = newest.number if newest else 0
    return number + EPOCH_STEP if old is None else max(number, old.epoch.number) + 1


def _set_aside(path: Path, now: datetime) -> Path | None:
    """Keep what is in the place under another name; the place is never empty.

    A journal that stayed would be read into whatever is put beside it.
    """
    replaced = path.with_name(f"{path.name}.replaced-{now:%Y%m%dT%H%M%S.%f}")
    for suffix in ("-wal", "-shm"):
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.rename(replaced.with_name(replaced.name + suffix))
    if not path.exists():
        return None
    os.link(path, replaced)
    return replaced


# --- files -----------------------------------------------------------------------------------------------
def _make_beside(path: Path) -> Path:
    """Make a file in the same folder that only its owner can read."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    os.close(descriptor)
    return Path(name)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _check_whole(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StoreError(f"is damaged: {found}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
