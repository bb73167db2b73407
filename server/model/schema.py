"""What all tables have in common: how they and their constraints are named, and the columns that many of them have.

A declaration is no I/O: only `store` opens sessions.
"""

import re
from collections.abc import Sequence

from sqlalchemy import BigInteger, CheckConstraint, MetaData, TextClause, text
from sqlalchemy.orm import declared_attr
from sqlmodel import Field, SQLModel

from server.model.clock import Micros

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
SQLModel.metadata.naming_convention = NAMING
METADATA: MetaData = SQLModel.metadata


class Table(SQLModel):
    """A table is named after its class in the singular, without `Row`: the frozen nouns have the plain names."""

    @declared_attr.directive
    def __tablename__(cls) -> str:  # noqa: N805  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel's own type is narrower than its use
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__.removesuffix("Row")).lower()


def one_of(column: str, words: Sequence[str]) -> CheckConstraint:
    """A column that holds one of these words."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(str(word)) for word in words)})", name=column)


def added(default: str) -> dict[str, TextClause]:
    """The default, in SQL, of a column that a later revision added: an older release writes rows without it."""
    return {"server_default": text(default)}


def time_column() -> Micros:
    """A time, 0 for never."""
    return Field(default=0, sa_type=BigInteger, nullable=False)
