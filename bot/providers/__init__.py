"""How a clip is made: one file per route, the vendors' words stay inside."""
