"""Makes Markdown tables of what was played: medians of the rounds, the least and the most beside the main figures."""

from collections.abc import Iterable, Sequence
from statistics import median

from bench import stages
from bench.rounds import BARE, POSTGRES, SQLITE, Played

NAMES = {
    "accept": {BARE: "bare grpc.aio server"},
    "deliver": {BARE: "bare client loop"},
    "pace": {BARE: "bare client loop"},
    "watch": {
        "nothing": "nobody watches, 100 messages/s",
        "message": "all watch one message that does not move, 100 messages/s",
        "tag": "each watches the tenant for a tag of its own, 100 messages/s",
        "tenant": "all watch the whole tenant, 2 messages/s",
    },
}


def all_of(played: Played) -> str:
    """A heading and a table or two for every stage that was played."""
    makers = {
        "accept": (_accept, _database),
        "deliver": (_deliver, _database),
        "pace": (_pace,),
        "watch": (_watch,),
        "start": (_start,),
    }
    rounds = max(map(len, played.values()))
    told = [f"Rounds: {rounds}. Medians (the least–the most); × is the ratio to the bare thing."]
    for stage, make in makers.items():
        view = _Stage(played, stage)
        if view.players:
            told += [f"### {stage.capitalize()}", *(maker(view) for maker in make)]
    return "\n\n".join(told)


class _Stage:
    """One stage of what was played."""

    def __init__(self, played: Played, stage: str) -> None:
        self.name = stage
        self._rounds = {who: figures for (of, who), figures in played.items() if of == stage}
        order = (BARE, SQLITE, POSTGRES, *NAMES.get("watch", ()))
        self.players = sorted(self._rounds, key=order.index)
        self.engines = [who for who in self.players if who in (SQLITE, POSTGRES)]

    def called(self, who: str) -> str:
        return NAMES.get(self.name, {}).get(who, who)

    def values(self, who: str, figure: str) -> list[float]:
        return [figures[figure] for figures in self._rounds[who] if figure in figures]

    def median(self, who: str, figure: str, digits: int = 0) -> str:
        """Nothing where there is no such figure."""
        values = self.values(who, figure)
        return f"{median(values):,.{digits}f}" if values else ""

    def spread(self, who: str, figure: str, digits: int = 0) -> str:
        """The median, the least and the most."""
        values = self.values(who, figure)
        least, most = (f"{value:,.{digits}f}" for value in (min(values), max(values)))
        return f"{self.median(who, figure, digits)} ({least}–{most})"

    def ratio(self, who: str, figure: str, digits: int) -> str:
        """To the bare thing's."""
        bare = median(self.values(BARE, figure))
        return f"**×{median(self.values(who, figure)) / bare:.{digits}f}**"


def _accept(stage: _Stage) -> str:
    heads = (
        f"Send, durable; {stages.CALLERS} callers, {stages.ACCEPTS:,} calls a round",
        "calls/s",
        "×",
        "server CPU, µs a call",
        "×",
        "Postgres CPU, µs a call",
        "a caller waits, ms: p50",
        "p99",
    )
    return table(
        heads,
        [
            (
                stage.called(who),
                stage.spread(who, "rate"),
                stage.ratio(who, "rate", 2),
                stage.spread(who, "cpu_micros"),
                stage.ratio(who, "cpu_micros", 1),
                stage.median(who, "postgres_cpu_micros") if who == POSTGRES else "",
                stage.median(who, "p50", 1),
                stage.median(who, "p99", 1),
            )
            for who in stage.players
        ],
    )


def _deliver(stage: _Stage) -> str:
    heads = (
        f"Send until the provider's answer is kept; {stages.CALLERS} callers, {stages.DELIVERIES:,} messages a round",
        "messages/s",
        "×",
        "CPU, µs a message",
        "×",
        "until it is done",
        "Postgres CPU, µs a message",
        "resident then, MiB",
    )
    return table(
        heads,
        [
            (
                stage.called(who),
                stage.spread(who, "rate"),
                stage.ratio(who, "rate", 2),
                stage.spread(who, "cpu_micros"),
                stage.ratio(who, "cpu_micros", 1),
                stage.median(who, "whole_cpu_micros"),
                stage.median(who, "postgres_cpu_micros") if who == POSTGRES else "",
                stage.median(who, "rss"),
            )
            for who in stage.players
        ],
    )


def _database(stage: _Stage) -> str:
    transactions = {"Flush": "accept", "Claims": "claim", "Apply": "apply", "read": "read"}
    micros = {
        "database_statement_micros": "statements, µs",
        "database_commit_micros": "begin and commit, µs",
        "database_cpu_micros": "CPU of the writer's thread, µs",
    }
    heads = (
        "the database, for one message",
        *(f"transactions: {what}" if what == "accept" else what for what in transactions.values()),
        *micros.values(),
    )
    rows = [
        (
            who,
            *(stage.median(who, room, 3) for room in transactions),
            *(stage.median(who, figure) for figure in micros),
        )
        for who in stage.engines
    ]
    return table(heads, rows)


def _pace(stage: _Stage) -> str:
    heads = (f"call → bytes at the provider, {stages.PACE:.0f}/s", "p50, ms", "×", "p99, ms", "×", "N a round")
    return table(
        heads,
        [
            (
                stage.called(who),
                stage.spread(who, "p50", 1),
                stage.ratio(who, "p50", 1),
                stage.spread(who, "p99", 1),
                stage.ratio(who, "p99", 1),
                stage.median(who, "count"),
            )
            for who in stage.players
        ],
    )


def _watch(stage: _Stage) -> str:
    heads = (
        f"{stages.WATCHERS} watchers on {SQLITE}",
        "CPU of the gateway, % of a core",
        "events told/s",
        "an event's delay, ms: p50",
        "p99",
        "to its last watcher: p50",
        "most",
    )
    delays = ("event_p50", "event_p99", "last_p50", "last_most")
    return table(
        heads,
        [
            (
                stage.called(who),
                stage.spread(who, "cpu_percent"),
                stage.median(who, "rate") if stage.values(who, "event_p50") else "",
                *(stage.median(who, delay, 1) for delay in delays),
            )
            for who in stage.players
        ],
    )


def _start(stage: _Stage) -> str:
    heads = (
        "exec → SERVING",
        "s, empty database",
        "s, again",
        "resident at rest, MiB",
        "CPU at rest, % of a core",
    )
    return table(
        heads,
        [
            (
                who,
                stage.spread(who, "first", 2),
                stage.spread(who, "again", 2),
                stage.spread(who, "rss"),
                stage.spread(who, "idle", 1),
            )
            for who in stage.players
        ],
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
