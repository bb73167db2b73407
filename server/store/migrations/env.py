"""Where alembic starts: it runs in the transaction that `upgrade` has opened."""

from alembic import context

from server.model.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
