"""Order, stream, loop, checkpoint and run folder: torch and numpy only, no Ray."""
