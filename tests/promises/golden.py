"""The first steps of every program, committed: what a change of the numbers has to answer for.

`python -m tests.promises.golden [CASE ...]` writes them anew; say in the commit why they changed. The present ones were
made when the three toy programs went, the gradient and update norms of every network joined the metrics, and 24 steps,
which every case takes anyhow, took the place of 50.
"""

import json
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def main(names: list[str]) -> None:
    import tests.conftest  # noqa: F401: platform, flags and folders, before jax is imported
    from tests.papers import CASES, by_name
    from tests.promises.runner import execute

    if not names:
        for path in FOLDER.glob("*.json"):
            path.unlink()
    FOLDER.mkdir(exist_ok=True)
    for name in names or [case.name for case in CASES]:
        with tempfile.TemporaryDirectory() as folder:
            lines = execute(by_name(name), Path(folder)).lines
        (FOLDER / f"{name}.json").write_text("[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n")
        print(f"{name}: {len(lines)} lines", file=sys.stderr)


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if not word.startswith("--")])
