"""Power cuts without a power switch: a process under `powercut.c` is ended by SIGKILL, and the shadow is what was left.

What the library watches is one folder; the shadow beside it holds what had been synced when the process ended.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
COMPILE = ("cc", "-shared", "-fPIC", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden")
COMPILE_SECONDS = 60


def library() -> Path:
    """The compiled library, made once for each version of its source; needs a C compiler named `cc`."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"angarium-powercut-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} is somebody else's")
    built = folder / f"{digest}.so"
    if not built.exists():
        draft = folder / f"{digest}.{os.getpid()}"
        subprocess.run([*COMPILE, SOURCE, "-o", draft, "-ldl", "-lpthread"], check=True, timeout=COMPILE_SECONDS)
        draft.rename(built)
    return built


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
        preload = [str(library()), *os.environ.get("LD_PRELOAD", "").split()]
        return {
            "LD_PRELOAD": " ".join(preload),
            "POWERCUT_FOLDER": str(self.folder),
            "POWERCUT_SHADOW": str(self.shadow),
            "POWERCUT_EARLY": str(self.early_permille),
            "POWERCUT_SEED": str(self.seed),
        }

    def after_cut(self, name: str, *, seed: int = 0) -> "Disk":
        """What is found when the power is back, as a disk of its own that can be cut again."""
        disk = Disk.under(self.folder.parent, name, early_permille=self.early_permille, seed=seed)
        for copy in (disk.folder, disk.shadow):
            shutil.copytree(self.shadow, copy, dirs_exist_ok=True)
        return disk
