"""An experiment that consists of cells: settings with several seeds, on parts that differ in set, size or steps."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlim_ray.config.compare import CompareRunConfig
from mlim_ray.config.files import config_text
from mlim_ray.evaluation.tasks import chosen_tasks
from mlim_ray.pipelines.arms import Cells, cell_folders, run_arms
from mlim_ray.pipelines.cluster import LOCAL
from mlim_ray.pipelines.joined import joined
from mlim_ray.pipelines.plan import check_run, describe_run
from mlim_ray.pipelines.request import RunRequest
from mlim_ray.pipelines.setting import check_places
from mlim_ray.reporting.comparison_page import Section, render_comparison_page
from mlim_ray.reporting.figures import Command
from mlim_ray.reporting.progress import console_width, say
from mlim_ray.reporting.result_lines import result_lines
from mlim_ray.training.environment import describe_environment
from mlim_ray.training.resolve import resolve_size
from mlim_ray.training.run_folder import RunFolder, claim_folder

_PAGE, _EVALUATION = "report.html", "evaluation.json"


@dataclass(frozen=True)
class Part:
    """The cells of one prepared set."""

    name: str
    """of its folder in the experiment's"""
    heading: str
    request: RunRequest[CompareRunConfig]
    then: Callable[[Mapping[str, Cells]], RunRequest[CompareRunConfig]] | None = None
    """what is really run, where that follows from the cells of the parts before, by heading"""


@dataclass(frozen=True)
class CellExperiment:
    """What is run, and how it is concluded."""

    name: str
    question: str
    request: RunRequest[CompareRunConfig]
    parts: Sequence[Part]
    """one that follows from others has the request's own config, else the first"""
    conclude: Callable[[Mapping[str, Cells]], Sequence[Section]]
    """from the cells of the parts that ended so far, by heading"""

    def run(self) -> dict[str, Any]:
        """Run what is missing, conclude after each part, and write the page; gives the summary that `--json` prints.

        Raises:
            ValueError: the request cannot be met; nothing was started.
        """
        request = self.request
        if request.num_workers != 1:
            raise ValueError(
                f"--workers: given {request.num_workers}, expected 1: runs of an experiment have one worker each and "
                "go on side by side; leave it out"
            )
        chosen_tasks(request.config.compare.tasks)
        if request.dry_run:
            return self._describe()
        # The parts of an experiment that goes on have been checked, and have their config in their folders.
        for part in [self._own] if request.resume else self.parts:
            check_run(part.request, self.name, "resident")
        folder = claim_folder(request.out, self.name, resume=request.resume, overwrite=request.overwrite)
        if request.resume and folder.is_finished:
            say(f"{folder.path} is finished already; its page: {folder.file(_PAGE)}")
            return _summary(folder)
        say(f"run folder: {folder.path}")

        def stopped() -> str:
            return f"stopped by SIGTERM; continue with: {self._resume_command(folder)}"

        with joined(request, folder, stopped) as cluster:
            config = resolve_size(request.config, has_gpu=cluster.num_gpus >= 1)
            folder.write_text("config.yaml", config_text(config))
            folder.write_json("environment.json", describe_environment(data=request.data))
            cells: dict[str, Cells] = {}
            for part in self.parts:
                asked = part.request if part.then is None else part.then(cells)
                check_places(asked.data, request.out, cluster)
                cells[part.heading] = run_arms(asked, RunFolder(folder.file(part.name)), cluster, part.heading)
                sections = self.conclude(cells)
                self._write_page(folder, config, sections)
        for section in sections:
            for line in result_lines(section.heading, section.result, console_width()):
                say(line)
        results = {section.heading: dict(section.result) for section in sections}
        folder.write_json(_EVALUATION, {"data": request.data, "results": results})
        say(f"page: {folder.file(_PAGE)}")
        return _summary(folder)

    @property
    def _own(self) -> Part:
        return next((part for part in self.parts if part.then is not None), self.parts[0])

    def _describe(self) -> dict[str, Any]:
        for part in [] if self.request.resume else self.parts:
            if part is not self._own:
                check_run(part.request, self.name, "resident")
        summary = describe_run(self._own.request, self.name, "resident")
        config = self.request.config
        sizes: dict[tuple[int, int, int], int] = {}
        for part in self.parts:
            of_part = part.request.config
            size = (len(of_part.compare.arms), of_part.compare.num_seeds, of_part.train.num_steps)
            sizes[size] = sizes.get(size, 0) + 1
        num_cells = sum(count * num_arms * num_seeds for (num_arms, num_seeds, _), count in sizes.items())
        say(f"settings: {', '.join(config.compare.arms)}")
        say(f"parts: {'; '.join(part.heading for part in self.parts)}")
        for (num_arms, num_seeds, num_steps), count in sizes.items():
            say(
                f"cells: {count} x {num_arms} settings x {num_seeds} seeds = {count * num_arms * num_seeds} runs of "
                f"{num_steps:,} steps"
            )
        return summary | {"num_cells": num_cells}

    def _resume_command(self, folder: RunFolder) -> str:
        where = "" if self.request.address == LOCAL else f" --address {self.request.address}"
        return f"python experiments/{self.name}.py --out {shlex.quote(folder.path)} --resume{where}"

    def _write_page(self, folder: RunFolder, config: CompareRunConfig, sections: Sequence[Section]) -> None:
        part = self.parts[0]
        first, second, *_ = cell_folders(RunFolder(folder.file(part.name)), part.request.config)
        commands = [
            Command("Curves and configs of any of its runs:", f"mlim-ray compare {first} {second} --out compare.html"),
            Command("Go on with it, had it been stopped:", self._resume_command(folder)),
        ]
        page = render_comparison_page(
            title=folder.path.rpartition("/")[2],
            kind=self.name.replace("_", " "),
            lead=self.question,
            sections=sections,
            commands=commands,
            config=config.model_dump(mode="json"),
            environment=folder.read_json("environment.json"),
        )
        folder.write_text(_PAGE, page)


def _summary(folder: RunFolder) -> dict[str, Any]:
    evaluation = folder.read_json(_EVALUATION)
    verdict = {heading: result["verdict"] for heading, result in evaluation["results"].items()}
    return {"out": folder.path, "report": folder.file(_PAGE), "verdict": verdict, **evaluation}
