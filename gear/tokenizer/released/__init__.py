"""The public tokenizer files of LlamaGen, Open-MAGVIT2, SEED-Voken's IBQ and GEAR, read and written exactly.

    released = read(Path("vq_ds16_c2i.pt"))                       # family "VQ-16", layout "llamagen"
    tokenizer = Tokenizer.from_released("IBQ_pretrain_16384.ckpt")
    write(Path("mine.pt"), "gear", tokenizer.state_dict(), "IBQ-16")

Four layouts are in use, in any of which a family may come: a `state_dict` among a trainer's other things (Lightning,
with the average under names whose dots are removed), `model` (LlamaGen), `vq` and `vq_ema` (GEAR), and bare tensors.
"""

from gear.tokenizer.released.names import Layout, NoTokenizer, ReleasedError
from gear.tokenizer.released.reading import Released, is_released, read, recognise
from gear.tokenizer.released.writing import write

__all__ = ["Layout", "NoTokenizer", "Released", "ReleasedError", "is_released", "read", "recognise", "write"]
