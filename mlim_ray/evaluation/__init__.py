"""What a pre-trained model is worth: the probes of every run, and the tasks that `tasks` lists."""
