"""No RPC without an entry in the table of scopes."""

import pytest

from server.api.scopes import MAKES_ITS_TENANT, SCOPES, UnlistedRpc, require_complete
from server.api.server import SERVICES


def test_the_table_is_complete() -> None:
    """The table lists every RPC of every service that is served, and nothing more."""
    require_complete(SERVICES)
    assert SCOPES.keys() >= MAKES_ITS_TENANT


@pytest.mark.parametrize("missing", range(len(SERVICES)))
def test_no_server_is_built_when_table_and_contract_differ(missing: int) -> None:
    """Whichever service one of them lacks, the build stops and names its RPCs."""
    with pytest.raises(UnlistedRpc, match=SERVICES[missing].methods[0].name):
        require_complete([*SERVICES[:missing], *SERVICES[missing + 1 :]])
