"""A real gRPC server on port 0 over a real store, without a dispatcher: what is accepted stays as it is."""

from collections.abc import AsyncIterator

import pytest

from tests.api.edge import Edge, running


@pytest.fixture
async def edge(database_url: str) -> AsyncIterator[Edge]:
    """On each engine."""
    async with running(database_url) as started:
        await started.configure_sandbox()
        yield started


@pytest.fixture
async def sqlite_edge(sqlite_url: str) -> AsyncIterator[Edge]:
    """For claims in which the database has no part."""
    async with running(sqlite_url) as started:
        await started.configure_sandbox()
        yield started
