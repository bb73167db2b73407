"""The power of a gateway on SQLite is cut under load: what it had not synced is gone."""

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from tests.gateway import OPERATOR_KEY_FILE
from tests.proof.ground import Ground, Layout
from tests.proof.powercut import Disk
from tests.proof.scenario import Scenario
from tests.proof.trial import Trial, Verdict

DATABASE = "angarium.db"
EARLY_PERMILLE = 300
MESSAGES_MAX = 60
AWAY = ("UNAVAILABLE", "")
UNEXPECTED = ('"level": "critical"', "Traceback")


async def cut_power(ground: Ground, seed: int, rounds: int, *, early_permille: int = 0) -> Verdict:
    """So many cuts, each after some messages and at whatever moment the callers have come to.

    `early_permille`: of a thousand writes so many reach the disk before they are synced, some only in part.
    """
    disk = Disk.under(ground.folder, "disk", early_permille=early_permille, seed=seed)
    # The database lives on the disk that loses its power, and is found where every trial looks for it.
    for name in (DATABASE, OPERATOR_KEY_FILE):
        (ground.folder / name).symlink_to(disk.folder / name)
    environment = {**disk.environment, "ANGARIUM_DATABASE_URL": f"sqlite:///{disk.folder / DATABASE}"}
    async with Trial(ground, seed, environment=environment) as trial:
        trial.forbidden = UNEXPECTED
        trial.load.start()
        for number in range(1, rounds + 1):
            await trial.load.reach(trial.dice.randrange(1, MESSAGES_MAX))
            await trial.follow(4)
            await _cut(trial, disk, {"POWERCUT_SEED": str(seed + number)})
        await trial.load.stop()
        trial.require_answers(AWAY)
        return await trial.judged()


async def _cut(trial: Trial, disk: Disk, environment: Mapping[str, str]) -> None:
    gateway, dead = trial.gateways[0], trial.boots[0]
    gateway.kill()
    assert await gateway.ended() == -signal.SIGKILL
    _lose(disk.folder, disk.shadow)
    gateway.environment |= environment
    trial.seconds["from the start to serving"].append(await trial.revive(0))
    await trial.forgotten(dead)
    trial.counts["cuts"] += 1


def _lose(folder: Path, shadow: Path) -> None:
    """What was not synced is gone, in the same place."""
    shutil.rmtree(folder)
    shutil.copytree(shadow, folder)


async def _cut_early(ground: Ground, seed: int, rounds: int) -> Verdict:
    return await cut_power(ground, seed, rounds, early_permille=EARLY_PERMILLE)


SCENARIOS = (
    Scenario("the power is cut, nothing unsynced survives", (Layout.SQLITE,), "cuts", 10, cut_power),
    Scenario("the power is cut, some unsynced writes survive", (Layout.SQLITE,), "cuts", 10, _cut_early),
)
