"""What everybody would write without a gateway: a loop that calls the provider's API and stores nothing.

httpx on aiohttp's sockets, as the gateway has it, called without httpx's client, which costs another third.
"""

import json

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from bench import sends
from bench.children import obey, run
from bench.pacing import Load

CONNECTIONS = 128


async def main(port: str) -> None:
    url = f"http://127.0.0.1:{port}/v1/{sends.API_KEY}/sms/send.json"
    transport = AiohttpTransport(
        client=lambda: aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS), trust_env=False)
    )

    async def send(number: int) -> None:
        form = {"receptor": sends.phone(number), "message": sends.text(number), "sender": sends.LINE, "localid": number}
        response = await transport.handle_async_request(httpx.Request("POST", url, data=form))
        answer = json.loads(await response.aread())
        await response.aclose()
        assert answer["return"]["status"] == 200

    load = Load(send)
    await obey({"burst": load.burst, "pace": load.pace})
    await transport.aclose()


if __name__ == "__main__":
    run(main)
