"""`make bench`: every benchmark as one table, or as JSON lines with --json."""

import argparse
import json
import platform

import torch
from rich.console import Console
from rich.table import Table

from bench import readout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a row")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    rows = [*readout.run(arguments.device)]
    if arguments.json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    on = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.processor() or platform.machine()}"
    table = Table(title=f"{on}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for column in ("path", "unit", "ours", "plain", "ratio", "target", "spread", "bound by"):
        table.add_column(column)
    for r in rows:
        numbers = [f"{r[k]:.3g}" for k in ("ours", "dense", "ratio")]
        table.add_row(
            str(r["path"]), str(r["unit"]), *numbers, f"<= {r['target']}", f"{r['spread']:.0%}", str(r["bound"])
        )
    Console().print(table)


if __name__ == "__main__":
    main()
