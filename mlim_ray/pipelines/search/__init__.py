"""The search: Ray Tune executes, the Optuna journal is the only state (contract C6)."""
