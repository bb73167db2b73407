"""Faults of the store: what is durable, what is once, what is in order, and whose it is."""

from tests.mutants.mutant import Change, Mutant

_FLUSH = "server/store/flush.py"
_SQLITE = "server/store/sqlite.py"
_POSTGRES = "server/store/postgres.py"
_LOG = "server/store/log.py"
_READING = "server/store/reading.py"
_APPLY = "server/store/apply.py"
_LIVENESS = "server/store/liveness.py"
_VERIFY = "server/store/verify.py"
_VERIFICATIONS = "server/store/verifications.py"

_UNSAFE = Change(
    _POSTGRES,
    'if connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "off":',
    'if connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "never":',
)

DURABLE = (
    Mutant(
        "M1",
        "Accepted means durable: a caller is answered before COMMIT.",
        (
            Change(
                _FLUSH,
                "written = await self._database.write(lambda connection: self._write(connection, entries))",
                """\
loop = asyncio.get_running_loop()
            early: asyncio.Future[_Written] = loop.create_future()

            def write(connection: Connection) -> None:
                loop.call_soon_threadsafe(early.set_result, self._write(connection, entries))

            self._commit = asyncio.ensure_future(self._database.write(write))
            written = await early""",
            ),
        ),
        ("tests/store/test_accept.py::test_what_is_not_committed_is_not_answered",),
    ),
    Mutant(
        "M2",
        "Accepted means durable: SQLite syncs at checkpoints alone (`synchronous=NORMAL`).",
        (Change(_SQLITE, '"synchronous=FULL"', '"synchronous=NORMAL"'),),
        ("tests/store/test_durability.py::test_a_power_cut_loses_nothing_that_was_acknowledged",),
    ),
    Mutant(
        "M3a",
        "Accepted means durable: a Postgres that may lose commits is not refused at the start.",
        (_UNSAFE,),
        ("tests/store/test_faults.py::test_a_database_that_may_lose_commits_is_refused",),
    ),
    Mutant(
        "M3b",
        "Accepted means durable: our own connections ask Postgres not to wait for the disk (`synchronous_commit=off`).",
        (
            _UNSAFE,
            Change(_POSTGRES, '            "-c jit=off",', '            "-c jit=off -c synchronous_commit=off",'),
        ),
        ("tests/store/test_durability.py::test_a_crash_of_postgres_loses_nothing_that_was_acknowledged",),
    ),
)

ONCE = (
    Mutant(
        "M8",
        "One key, one message: keys are looked up first and inserted then, and whoever wins the insert is not asked.",
        (
            Change(
                _FLUSH,
                '        won = self._database.dialect.insert_new(connection, IDEMPOTENCY, rows, "message_id")\n',
                """\
        known = read_kept(connection, self._database.dialect, [key_of(entry.new.message) for entry in keyed])
        self._database.dialect.insert_new(connection, IDEMPOTENCY, rows, "message_id")
        won = {entry.new.message.id for entry in keyed if key_of(entry.new.message) not in known}
""",
            ),
        ),
        ("tests/store/test_accept.py::test_flushes_in_opposite_key_order_do_not_deadlock[postgres]",),
    ),
    Mutant(
        "M9",
        "One key, one request: another request under a key that was used is answered as if it were the first.",
        (
            Change(
                "server/store/replays.py",
                "if kept.fingerprint != new.fingerprint:",
                "if not kept.fingerprint:",
            ),
        ),
        ("tests/api/test_bad_requests.py::test_a_key_for_another_request",),
    ),
)

LOG = (
    Mutant(
        "M10a",
        "No event is missed: on Postgres the log is read by `id >` alone, to its end.",
        (
            Change(
                _LOG,
                "    return tuple_(*_PLACE) > (place.log_epoch, place.xid, place.id)",
                "    return _EVENT.c.id > place.id",
            ),
            Change(
                _LOG,
                "    return tuple_(*_PLACE) <= (place.log_epoch, place.xid, place.id)",
                "    return _EVENT.c.log_epoch <= place.log_epoch",
            ),
        ),
        ("tests/store/test_watch.py::test_an_older_transaction_that_commits_later_is_not_missed",),
    ),
    Mutant(
        "M10b",
        "No event is missed: on Postgres transactions that are still running do not hold up the log.",
        (Change(_LOG, "pg_snapshot_xmin(pg_current_snapshot())", "pg_snapshot_xmax(pg_current_snapshot())"),),
        ("tests/store/test_watch.py::test_an_older_transaction_that_commits_later_is_not_missed",),
    ),
    Mutant(
        "M17",
        "Memory is bounded: what a watcher does not take is queued without end.",
        (Change("server/store/tail.py", "if len(self._entries) >= QUEUE_MAX:", "if len(self._entries) < 0:"),),
        ("tests/store/test_watch.py::test_a_watcher_that_lags_is_told_and_comes_back",),
    ),
    Mutant(
        "M19",
        "A cursor of a history that was undone is refused: a restart on SQLite begins no new epoch of the log.",
        (
            Change(
                "server/store/epoch.py",
                "if stored.system == identity if dialect.postgres else running:",
                "if stored.system == identity if dialect.postgres else (running or stored.log_epoch):",
            ),
        ),
        ("tests/store/test_restored_log.py::test_an_event_with_the_number_of_one_that_was_undone_is_not_taken_for_it",),
    ),
    Mutant(
        "M20",
        "Every change of a message is told: a receipt moves the state and leaves no event.",
        (
            Change(
                _APPLY,
                "self.events.extend(decision.events)",
                'self.events.extend(event for event in decision.events if event.kind != "RECEIPT")',
            ),
        ),
        ("tests/store/test_apply.py::test_a_message_goes_from_accepted_to_delivered_event_by_event",),
    ),
    Mutant(
        "M21",
        "State and event are one: the state is committed first, the event after it.",
        (
            Change(
                _APPLY,
                "        if events:\n            dialect.insert(connection, EVENT_NEW, events)\n",
                """\
        if events:
            connection.exec_driver_sql("COMMIT")
            if not self._database.postgres:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            dialect.insert(connection, EVENT_NEW, events)
""",
            ),
        ),
        ("tests/store/test_wholeness.py::test_a_fact_whose_event_can_not_be_written_changes_nothing",),
    ),
)

TENANTS = (
    Mutant(
        "M12a",
        "A tenant reads its own alone: a message is read by its id, whoever asks.",
        (
            Change(
                _READING,
                "    this = (_MESSAGE.c.tenant_id == tenant_id, _MESSAGE.c.id == message_id)",
                "    this = (_MESSAGE.c.id == message_id,)",
            ),
        ),
        ("tests/api/test_bad_callers.py::test_what_is_another_tenants_does_not_exist",),
    ),
    Mutant(
        "M12b",
        "A tenant reads its own alone: lists, and the backlog of a watch, hold every tenant's.",
        (Change("server/store/filters.py", "= [c.tenant_id == tenant_id]", "= []"),),
        ("tests/api/test_bad_callers.py::test_what_is_another_tenants_does_not_exist",),
    ),
    Mutant(
        "M12c",
        "A tenant watches its own alone: a message is watched by its id, whoever asks.",
        (
            Change(
                "server/store/watch.py",
                "    this = (_MESSAGE.c.tenant_id == tenant_id, _MESSAGE.c.id == message_id)",
                "    this = (_MESSAGE.c.id == message_id,)",
            ),
        ),
        ("tests/store/test_walls.py::test_a_watch_of_anothers_message_is_refused_and_not_begun",),
    ),
    Mutant(
        "M12d",
        "A tenant cancels its own alone: Cancel stops a message before it looks whose that is.",
        (
            Change(
                "server/api/notifications.py",
                "        case = await self._named(call, request.tracking_id)\n        if case.message.stop",
                """\
        await asyncio.shield(self._store.apply(request.tracking_id, Stopped(Stop.CANCELED)))
        case = await self._named(call, request.tracking_id)
        if case.message.stop""",
            ),
        ),
        ("tests/api/test_foreign.py::test_what_a_tenant_asks_of_anothers_message_leaves_it_as_it_was",),
    ),
    Mutant(
        "M12e",
        "A tenant reads its own alone: a message's events are read by its id, whoever asks.",
        (
            Change(
                _LOG,
                "mine = (_EVENT.c.tenant_id == tenant_id, _EVENT.c.message_id == message_id, _EVENT.c.seq > after_seq)",
                "mine = (_EVENT.c.message_id == message_id, _EVENT.c.seq > after_seq)",
            ),
        ),
        ("tests/store/test_reading.py::test_what_is_another_tenants_does_not_exist",),
    ),
    Mutant(
        "M12f",
        "A tenant reads its own alone: a message is found by its request_id, whoever sent it.",
        (Change(_READING, "        col(Idempotency.tenant_id) == tenant_id,\n", ""),),
        ("tests/store/test_walls.py::test_two_tenants_that_use_one_key_find_their_own_message",),
    ),
    Mutant(
        "M12g",
        "A tenant revokes its own keys alone: a key is revoked by its id, whoever asks.",
        (
            Change(
                "server/store/access.py",
                "            this = (col(ApiKey.tenant_id) == tenant_id, col(ApiKey.key_id) == key_id)",
                "            this = (col(ApiKey.key_id) == key_id,)",
            ),
        ),
        ("tests/api/test_foreign.py::test_a_tenant_finds_and_revokes_no_key_of_another",),
    ),
    Mutant(
        "M12h",
        "A tenant reads its own alone: the list of keys holds every tenant's.",
        (
            Change(
                "server/store/access.py",
                "        mine = select(ApiKey).where(col(ApiKey.tenant_id) == tenant_id)\n",
                "        mine = select(ApiKey)\n",
            ),
        ),
        ("tests/api/test_foreign.py::test_a_tenant_finds_and_revokes_no_key_of_another",),
    ),
)

CODES = (
    Mutant(
        "M11a",
        "One code, one success: a check looks whether the code may still verify, and sets it verified then.",
        (
            Change(
                _VERIFY,
                "        aimed = self._aim(connection, fresh)\n",
                """\
        aimed = self._aim(connection, fresh)
        looked = _by_id(connection, dialect, [(one.check.tenant_id, one.verification_id) for one in aimed])
        looked_at = self._database.now(connection)
        self._open = {found.id for found in looked.values() if found.takes_codes(looked_at)}
""",
            ),
            Change(
                _VERIFY,
                "        row = connection.execute(_SPEND, values).one_or_none()\n",
                """\
        is_open = one.verification_id in self._open
        row = connection.execute(_SPEND, values).one_or_none() if is_open else None
""",
            ),
            Change(
                _VERIFY,
                '    "AND is_live AND verified_at = 0 AND attempts < attempts_max AND expires_at > :now "\n',
                "",
            ),
        ),
        ("tests/store/test_verify.py::test_of_200_checks_at_once_one_verifies",),
    ),
    Mutant(
        "M11b",
        "No code is guessed: a check spends no attempt.",
        (Change(_VERIFY, "SET attempts = attempts + 1, ", "SET attempts = attempts, "),),
        ("tests/store/test_verify.py::test_of_many_wrong_checks_five_are_judged",),
    ),
    Mutant(
        "M11c",
        "No fallback goes out after a code verified: its messages are left as they are.",
        (
            Change(
                _VERIFICATIONS,
                "    if statements:\n        apply.rule(",
                "    if not statements:\n        apply.rule(",
            ),
        ),
        ("tests/store/test_verify.py::test_a_verified_code_ends_its_messages_in_the_same_transaction",),
    ),
    Mutant(
        "M25a",
        "Codes are limited: a flush counts its sends and refuses none.",
        (
            Change(
                _VERIFICATIONS,
                "        if judged.refusal is not None:\n            return judged.refusal\n",
                "",
            ),
        ),
        ("tests/store/test_verifications.py::test_a_refused_call_leaves_its_key_free_and_its_neighbours_alone",),
    ),
    Mutant(
        "M25b",
        "Codes are limited exactly: on Postgres two processes that send at once count from the same old figure.",
        (
            Change(
                "server/store/limits.py",
                'f"ORDER BY tenant_id, kind, subject{dialect.locked()}"',
                'f"ORDER BY tenant_id, kind, subject"',
            ),
        ),
        ("tests/store/test_verifications.py::test_a_send_waits_for_one_that_is_being_judged_elsewhere",),
    ),
    Mutant(
        "M25d",
        "A call costs the same however much is kept: SQLite looks for keys, buckets and codes in the whole table.",
        (
            Change(
                "server/store/tuples.py",
                "IN (SELECT * FROM (VALUES {rows}) AS wanted)",
                "IN (VALUES {rows})",
            ),
        ),
        ("tests/store/test_verifications.py::test_nothing_is_looked_for_in_a_whole_table",),
    ),
    Mutant(
        "M25c",
        "A refused call may come again: its key stays taken, and leads to no message.",
        (
            Change(
                _FLUSH,
                "[key_of(new) for new in news.values() if new.request_id]",
                "[key_of(new) for new in news.values() if not new.id]",
            ),
        ),
        ("tests/store/test_verifications.py::test_a_refused_call_leaves_its_key_free_and_its_neighbours_alone",),
    ),
)

LIVENESS = (
    Mutant(
        "M23a",
        "Nobody living is taken for dead: how long a beat stood still is told by the wall clock.",
        (
            Change(
                _LIVENESS, "self._sightings.look(beats, time.monotonic())", "self._sightings.look(beats, time.time())"
            ),
        ),
        ("tests/store/test_clock_steps.py::test_a_clock_that_is_set_ahead_has_nobody_taken_for_dead",),
    ),
    Mutant(
        "M23b",
        "Nobody living is taken for dead: what was seen before a pause of the one that looks still counts.",
        (Change(_LIVENESS, "steady = now - self.looked_at <= BLIND_SECONDS", "steady = now >= self.looked_at"),),
        ("tests/store/test_liveness.py::test_a_watcher_that_was_blind_declares_nobody_dead",),
    ),
)

MUTANTS = (*DURABLE, *ONCE, *LOG, *TENANTS, *CODES, *LIVENESS)
