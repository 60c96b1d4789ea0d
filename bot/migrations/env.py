"""Alembic's entry point. The connection comes from `bot.jobs.store`; there is no alembic.ini."""

from alembic import context

from bot.jobs.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
