"""What a clip job is, how it moves, and who moves it. Nothing here knows Discord."""
