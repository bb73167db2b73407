"""All mutants, by their numbers."""

import re

from tests.mutants import of_edges, of_rules, of_store
from tests.mutants.mutant import Mutant


def _place(mutant: Mutant) -> tuple[int, str]:
    return int(re.sub(r"\D", "", mutant.name)), mutant.name


MUTANTS = tuple(sorted((*of_store.MUTANTS, *of_rules.MUTANTS, *of_edges.MUTANTS), key=_place))
