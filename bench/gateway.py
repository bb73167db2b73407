"""The gateway as a child of a run: `server.app`, with its transactions counted and, where asked, its code profiled."""

from bench.children import obey, run
from bench.counting import Tally, count
from bench.profiling import Profiles
from server import app
from server.settings import Settings


async def main() -> None:
    settings = Settings()
    app.configure_logging(settings.log_level)
    tally = Tally()
    count(tally)
    application = await app.build(settings)
    port = await application.start()
    profiles = Profiles(application.store._database)  # noqa: SLF001 - whose writer thread has a profile of its own
    verbs = {"clear": tally.clear, "counts": tally.counts, "profile": profiles.start, "profiled": profiles.stop}
    try:
        await obey(verbs, port=port, key=await _key(settings, application))
    finally:
        await application.stop()


async def _key(settings: Settings, application: app.Application) -> str:
    """The operator's key, which on SQLite is in the data folder by now."""
    if settings.data_folder is not None:
        return (settings.data_folder / app.OPERATOR_KEY_FILE).read_text().strip()
    shown: list[str] = []
    await application.store.bootstrap(shown.append)
    return "".join(shown)


if __name__ == "__main__":
    run(main)
