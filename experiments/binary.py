"""What every experiment's binary shares: its flags, its last line, how it ends."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from rl_jax.core.runtime import fail, is_main_process, run_binary, start_process
from rl_jax.core.sweep import Setting, at, in_sequence, title

Main = Callable[[ConfigDict, Path], dict[str, Any]]


def run_experiment(main: Main, default_config: str) -> None:
    """Runs `main(config, workdir) -> summary` with the flags --config and --workdir.

    Where fields of `config.sweep` run in sequence it is called for each combination. The summary is printed as one JSON
    object, the last line on standard output; everything else goes to stderr.

    Args:
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
        combinations = in_sequence(config.value)  # before anything starts: it checks the sweep
        start_process(config.value.distributed, deterministic=config.value.deterministic)
        folder = Path(workdir.value).expanduser().absolute()
        if combinations[0]:
            summary = run_sequence(main, config.value, folder, combinations)
        else:
            summary = main(config.value, folder)
        if is_main_process():
            print(json.dumps(summary), flush=True)

    def parse(argv: list[str]) -> list[str]:
        if not any(argument.startswith(("--config=", "-config=")) or argument == "--config" for argument in argv):
            argv = [argv[0], f"--config={default_config}", *argv[1:]]
        try:
            return flags.FLAGS(argv)
        except AttributeError as error:
            fail(f"the config has no such field: {error}".replace("\\n", " "))
        except (flags.Error, ValueError, TypeError, OSError) as error:
            # A config file's own error comes with its traceback as text: the last line says what is wrong.
            fail(str(error).replace("\\n", "\n").strip("\"'").splitlines()[-1].strip())

    run_binary(guarded, flags_parser=parse)


def run_sequence(main: Main, config: ConfigDict, workdir: Path, combinations: Sequence[Setting]) -> dict[str, Any]:
    """Runs the combinations of a sweep one after another, each in a folder of its own in `workdir`.

    Started again, it goes on where it was: a run that is finished trains nothing.

    Returns:
      A summary whose `sweep` lists the setting and the summary of each.
    """
    if (workdir / "config.json").exists():
        raise ValueError(f"{workdir} holds a run, and a sweep makes folders in it: use another --workdir")
    folders = [title(setting).replace("/", "-") for setting in combinations]
    summaries = []
    for number, (setting, folder) in enumerate(zip(combinations, folders, strict=True), start=1):
        logging.info("sweep: %d of %d, %s", number, len(combinations), title(setting))
        summaries.append({"setting": setting, "summary": main(at(config, setting), workdir / folder)})
    return {"paper": config.paper, "preset": config.preset, "workdir": str(workdir), "sweep": summaries}
