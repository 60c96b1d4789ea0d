"""Many rows in one statement, and several writes in one trip, as only PostgreSQL can take them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, TableValuedAlias, bindparam, column, func


def given_rows(columns: Mapping[str, ColumnElement[Any]], prefix: str = "") -> TableValuedAlias:
    """Rows that come with the statement, in columns of these names and of the types of these columns: `by_column` makes its
    parameters. One statement for any number of rows; and it can return something for each, as executemany cannot.
    `prefix` sets apart the parameters of several in one statement."""
    lists = [bindparam(f"{prefix}{name}", type_=ARRAY(of.type)) for name, of in columns.items()]
    given = func.unnest(*lists).table_valued(*(column(name, of.type) for name, of in columns.items()))
    return given.render_derived()


def by_column(
    names: Iterable[str], rows: Sequence[Mapping[str, Any]], prefix: str = ""
) -> dict[str, list[Any]]:
    """The same rows, as a list for each of these columns."""
    return {f"{prefix}{name}": [row[name] for row in rows] for name in names}
