"""One file a route: how its loopback server is started and told to misbehave. See `tests/providers/contract.py`."""
