"""The database's history, applied at start by `bot.jobs.store`."""
