"""What a person sees while a data set is made."""


class ProgressBar:
    """A progress bar on standard error, silent when that is not a terminal; entering it gives `advance(steps)`."""

    def __init__(self, name: str, total: int):
        from rich import console, progress

        terminal = console.Console(stderr=True)
        columns = (
            progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
            progress.TextColumn("steps"), progress.TimeRemainingColumn(),
        )
        self._bar = progress.Progress(*columns, console=terminal, disable=not terminal.is_terminal)
        self._task = self._bar.add_task(f"collecting {name}", total=total)

    def __enter__(self):
        self._bar.start()
        return lambda steps: self._bar.advance(self._task, steps)

    def __exit__(self, *exception) -> None:
        self._bar.stop()
