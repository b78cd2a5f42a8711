"""What `mlim-ray doctor` looks at, before money is spent: one file a kind of question."""
