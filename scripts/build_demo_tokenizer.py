"""Makes gear/pretrained/demo_tokenizer.safetensors, the warm-up tokenizer that the demo starts from.

    gear train demo-warmup --out runs/demo-warmup
    python scripts/build_demo_tokenizer.py runs/demo-warmup

It is shipped because a warm-up takes longer than the whole demo, and because a warm-up is what the paper starts both
arms from (section 4.1). Kept are the averaged tokenizer and the critic, in float16 (half the size; every arm
starts from the same rounded weights); optimiser states and live weights are not.
"""

import sys
from pathlib import Path

import torch

from gear.config_json import to_json
from gear.sources import BUILTIN
from gear.store.saving import save_safetensors
from gear.train import state


def main(run: Path) -> None:
    checkpoint = state.load(run)
    parts = {name: checkpoint.part(name) for name in ("tokenizer_ema", "critic")}
    tensors = {
        f"{name}.{key}": t.to(torch.float16) if t.is_floating_point() else t
        for name, part in parts.items()
        for key, t in part.items()
    }
    save_safetensors(BUILTIN, tensors, state.header(checkpoint.step, checkpoint.config, checkpoint.classes))
    print(f"{BUILTIN}: step {checkpoint.step}, {BUILTIN.stat().st_size / 2**20:.1f} MiB")
    print(to_json(checkpoint.config))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
