"""Power cuts without a power switch: a process under `powercut.c` is ended by SIGKILL, and the shadow is what was left.

What the library watches is one folder; the shadow beside it holds what had been synced when the process ended.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.proof import preload

SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class Disk:
    """A folder that a process writes in, and what of it is on the disk.

    Of a thousand writes the disk takes `early_permille` before it is asked to, some of them only in part.
    """

    folder: Path
    shadow: Path
    early_permille: int = 0
    seed: int = 0

    @classmethod
    def under(cls, parent: Path, name: str, *, early_permille: int = 0, seed: int = 0) -> "Disk":
        """An empty disk."""
        disk = cls(parent / name, parent / f"{name}.shadow", early_permille, seed)
        disk.folder.mkdir()
        disk.shadow.mkdir()
        return disk

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that a process needs for its power to be cut."""
        return preload.environment(
            SOURCE,
            POWERCUT_FOLDER=str(self.folder),
            POWERCUT_SHADOW=str(self.shadow),
            POWERCUT_EARLY=str(self.early_permille),
            POWERCUT_SEED=str(self.seed),
        )

    def after_cut(self, name: str, *, seed: int = 0) -> "Disk":
        """What is found when the power is back, as a disk of its own that can be cut again."""
        disk = Disk.under(self.folder.parent, name, early_permille=self.early_permille, seed=seed)
        for copy in (disk.folder, disk.shadow):
            shutil.copytree(self.shadow, copy, dirs_exist_ok=True)
        return disk
