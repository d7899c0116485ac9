"""The one main of all binaries: flags -> configuration -> experiment -> loop -> last line."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from rl_jax.core import loop, sweep
from rl_jax.core.config import check_core_config
from rl_jax.core.experiment import Experiment
from rl_jax.core.files import write_atomically
from rl_jax.core.metrics import plain
from rl_jax.core.runtime import fail, is_main_process, run_binary, start_process

MakeExperiment = Callable[[ConfigDict], Experiment]


def main(make: MakeExperiment, default_config: str) -> None:
    """Runs an experiment with the flags --config and --workdir.

    The result is one JSON object, the last line on standard output, and `result.json` in the run's folder; everything
    else goes to stderr. Where fields of `config.sweep` run in sequence, each combination is a run of its own.

    Args:
      make: configuration -> Experiment, which reads its data and opens its simulators.
      default_config: "configs/<paper>.py:<preset>".
    """
    config = config_flags.DEFINE_config_file("config", None, f"File:preset; {default_config} if not given.")
    workdir = flags.DEFINE_string("workdir", None, "The run's folder; a run that lies there goes on.")
    flags.mark_flag_as_required("workdir")
    for name in ("config", "workdir"):
        # --help shows the flags of the main module: these are its.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}: fields are set as --config.field=value")
        check_paper(config.value, default_config)
        combinations = sweep.in_sequence(config.value)  # before anything starts: it checks the sweep
        start_process(config.value.distributed, deterministic=config.value.deterministic)
        folder = Path(workdir.value).expanduser().absolute()
        if combinations[0]:
            summary = run_sequence(make, config.value, folder, combinations)
        else:
            summary = run(make, config.value, folder)
        if is_main_process():
            print(json.dumps(summary), flush=True)

    def parse(argv: list[str]) -> list[str]:
        if not any(argument.startswith(("--config=", "-config=")) or argument == "--config" for argument in argv):
            argv = [argv[0], f"--config={default_config}", *argv[1:]]
        try:
            return flags.FLAGS(argv)
        except (AttributeError, KeyError) as error:
            fail(f"the config has no such field: {error}".replace("\\n", " "))
        except (flags.Error, ValueError, TypeError, OSError) as error:
            # A config file's own error comes with its traceback as text: the last line says what is wrong.
            fail(str(error).replace("\\n", "\n").strip("\"'").splitlines()[-1].strip())
        except (SyntaxError, ImportError) as error:
            fail(f"--config is no configuration, which is a Python file with get_config: {error}")

    run_binary(guarded, flags_parser=parse)


def check_paper(config: ConfigDict, default_config: str) -> None:
    """Raises ValueError where the configuration says that it is another paper's than the binary's default."""
    file = Path(default_config.partition(":")[0])
    if file.parts[0] == "configs" and (paper := config.get("paper", file.stem)) != file.stem:
        raise ValueError(f"--config is of {paper}, and this binary takes {file}: start the binary of {paper} with it")


def run(make: MakeExperiment, config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Runs one experiment to its end, or on to it; what the binary prints.

    Returns:
      paper, preset, step, seeds, the headline's mean over seeds at the end as `score` (in a sweep `sweep`: setting and
      score of each combination), updates_per_s, workdir, and what the experiment's `finish` adds.
    """
    check_core_config(config, len(sweep.side_by_side(config)))  # before data are read, which may take long
    experiment = make(config)
    result = loop.run(experiment, config, workdir)
    summary = {
        "paper": config.paper, "preset": config.preset, "step": result.step, "seeds": config.num_seeds, "score": None,
        "updates_per_s": result.updates_per_s, "workdir": str(workdir),
    }
    if not is_main_process():
        return summary
    last = result.evaluations[-1] if result.evaluations else {}
    if experiment.headline.name in last:
        values = np.broadcast_to(np.array(last[experiment.headline.name], np.float64), sweep.num_runs(config))
        if config.sweep:
            settings = zip(sweep.side_by_side(config), sweep.groups(config).values(), strict=True)
            summary["sweep"] = [{"setting": own, "score": plain(values[rows].mean())} for own, rows in settings]
        else:
            summary["score"] = plain(values.mean())
    if last:
        summary |= experiment.finish(result, workdir)
    write_atomically(workdir / "result.json", json.dumps(summary, indent=1) + "\n")
    return summary


def run_sequence(
    make: MakeExperiment, config: ConfigDict, workdir: Path, combinations: Sequence[sweep.Setting]
) -> dict[str, Any]:
    """Runs the combinations of a sweep one after another, each in a folder of its own in `workdir`.

    Started again, it goes on where it was: a run that is finished trains nothing.

    Returns:
      A summary whose `sweep` lists the setting and the summary of each.
    """
    if (workdir / "config.json").exists():
        raise ValueError(f"{workdir} holds a run, and a sweep makes folders in it: use another --workdir")
    folders = [sweep.title(setting).replace("/", "-") for setting in combinations]
    summaries = []
    for number, (setting, folder) in enumerate(zip(combinations, folders, strict=True), start=1):
        logging.info("sweep: %d of %d, %s", number, len(combinations), sweep.title(setting))
        summaries.append({"setting": setting, "summary": run(make, sweep.at(config, setting), workdir / folder)})
    return {"paper": config.paper, "preset": config.preset, "workdir": str(workdir), "sweep": summaries}
