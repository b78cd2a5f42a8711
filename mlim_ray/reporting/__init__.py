"""What a person sees: progress on the console, the page of a run and the page of a search."""

from mlim_ray.reporting.figures import Command
from mlim_ray.reporting.run_page import render_run_page
from mlim_ray.reporting.search_figures import Search, Trial
from mlim_ray.reporting.search_page import render_search_page
from mlim_ray.reporting.verdict import Verdict, judge

__all__ = ["Command", "Search", "Trial", "Verdict", "judge", "render_run_page", "render_search_page"]
