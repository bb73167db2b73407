"""What every test may ask for: a fresh database on either engine. In CI nothing may be skipped."""

import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests import grpcurl as grpcurls
from tests.cluster import Cluster
from tests.gateway import Gateway
from tests.grpcurl import Grpcurl
from tests.scripted_upstream import ScriptedUpstream

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

ENGINES = ("sqlite", "postgres")

# A first example compiles what it touches, and two cores are shared: time says nothing about a property.
settings.register_profile("angarium", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("angarium")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A Postgres of this test process's own."""
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def grpcurl() -> Grpcurl:
    """grpcurl, at hand."""
    return grpcurls.find()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'angarium.db'}"


@pytest.fixture
def postgres_url(cluster: Cluster) -> Iterator[str]:
    """An empty Postgres database."""
    name = cluster.create()
    yield cluster.url(name)
    cluster.drop(name)


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh empty database, once on each engine."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A provider that does as it is told."""
    running = await ScriptedUpstream().start()
    yield running
    await running.close()


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Gateway]:
    """A whole gateway in this process, once on each engine."""
    async with Gateway(database_url) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test, or one that is expected to fail, is a failure."""
    return _unskipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI a file that skips itself is a failure."""
    return _unskipped((yield))


def _unskipped(report: Report) -> Report:
    if report.outcome == "skipped" and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, which CI forbids: {report.longrepr}"
        vars(report).pop("wasxfail", None)
    return report
