"""Where the `animatic` command begins. Encoding processes import this module again, and so little else."""


def main() -> None:
    """Run the command line."""
    from bot.__main__ import main as start  # only when called: see above

    start()
