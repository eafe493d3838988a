"""How Alembic runs here: inside the caller's transaction, or as text for a dry run."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(
        dialect_name=context.config.attributes["dialect_name"],
        literal_binds=True,
        transactional_ddl=True,
    )
else:
    # The caller's transaction holds the write lock: every revision or none.
    context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
