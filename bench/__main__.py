"""`make bench`: every benchmark as one table, or as JSON lines with --json. The sizes are in each module."""

import argparse
import json
import platform
from dataclasses import asdict

import torch

from bench import decoding, engine, evaluation, generator, inception, joint, probes, readout, stored, text, tokenizer
from bench.table import show


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a row")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    rows = [*readout.run(arguments.device), *generator.run(arguments.device), *text.run()]
    rows += [*tokenizer.run(), *joint.run(), *decoding.run(), *stored.run(), *engine.run(arguments.device)]
    rows += [*inception.run(), *evaluation.run(), *probes.run()]
    if arguments.json:
        print("\n".join(json.dumps(asdict(row) | {"ratio": row.ratio}) for row in rows))
        return
    on = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    show(rows, f"{on}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
