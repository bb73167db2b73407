"""Whose an id of a provider's is: what a look-up finds by likeness may be another attempt's."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from sqlalchemy import Connection

from server.model.messages import Attempt
from server.store.dialect import Dialect
from server.store.inbox import Name

Place = tuple[str, int]
"""An attempt: its message's id, and its number."""


class Names:
    """The attempts that have some names, as they stand in one transaction; of other names it knows nothing."""

    def __init__(self, names: Collection[Name] = (), held: Iterable[tuple[Name, Place]] = ()) -> None:
        self._names = frozenset(names)
        self._places: defaultdict[Name, set[Place]] = defaultdict(set)
        for name, place in held:
            self._places[name].add(place)

    def is_anothers(self, name: Name, place: Place) -> bool:
        """Whether an attempt other than this one has the name."""
        return not self._places[name] <= {place}

    def give(self, message_id: str, attempts: Iterable[Attempt]) -> None:
        """These attempts of a message have the names that they bear now."""
        if not self._names:
            return
        for attempt in attempts:
            name = (attempt.account_uid, attempt.provider_message_id)
            if name in self._names:
                self._places[name].add((message_id, attempt.number))


def read_names(connection: Connection, dialect: Dialect, names: Collection[Name]) -> Names:
    """Who has these names. Nobody else who asks gives one of them away before this transaction ends."""
    if not names:
        return Names()
    uids = dialect.texts(sorted({uid for uid, _ in names}))
    ids = dialect.texts(sorted({id_ for _, id_ in names}))
    # Two replicas may find one id for two messages at once: by the account's row they take turns.
    connection.exec_driver_sql(
        f"SELECT uid FROM provider_account WHERE {dialect.among('uid')} ORDER BY uid{dialect.locked()}",  # noqa: S608
        (uids,),
    ).all()
    rows = connection.exec_driver_sql(
        "SELECT account_uid, provider_message_id, message_id, number FROM attempt "  # noqa: S608
        f"WHERE {dialect.among('account_uid')} AND {dialect.among('provider_message_id')}",
        (uids, ids),
    ).all()
    return Names(names, [((uid, id_), (message_id, number)) for uid, id_, message_id, number in rows])
