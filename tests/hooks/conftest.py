"""A gateway with an HTTP edge, and a scripted Twilio that it has an account with."""

from collections.abc import AsyncIterator

import pytest

from tests.hooks.edge import HttpGateway
from tests.providers.twilio_upstream import TwilioUpstream


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioUpstream]:
    """A provider that takes every text and says no more of it than that."""
    running = TwilioUpstream()
    await running.start()
    yield running
    await running.close()


@pytest.fixture
async def edge(database_url: str, twilio: TwilioUpstream) -> AsyncIterator[HttpGateway]:
    """A gateway behind a public URL, with an account, once on each engine."""
    async with HttpGateway(database_url) as running:
        await running.configure_twilio(twilio.base_url)
        yield running


@pytest.fixture
async def on_sqlite(sqlite_url: str, twilio: TwilioUpstream) -> AsyncIterator[HttpGateway]:
    """The same on SQLite alone."""
    async with HttpGateway(sqlite_url) as running:
        await running.configure_twilio(twilio.base_url)
        yield running
