"""What a person sees: progress on the console, the page of a run and the page of a search."""
