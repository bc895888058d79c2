"""Check CIFAR-10's data, or download the official archive.

    python tools/get_cifar10.py --data-dir DIR    reports what is there and checks it
    python tools/get_cifar10.py --download DIR    fetches the official python archive, then does the same

A folder may hold any of CIFAR-10's usual archives, packed or not; experiments/p4/cifar10_archives.py reads them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a standalone script: the project root comes first

from experiments.cli import Parser, exit_status, path
from experiments.p4 import cifar10_archives, datasets


def main(arguments: list[str] | None = None) -> int:
    """Say what a data folder holds and whether it is right, or download it. Returns the exit status."""
    parser = Parser("get_cifar10", "Check CIFAR-10 data, or download them.")
    parser.add_argument("--data-dir", type=path, help="folder with the data (default: the one that DLPERF_DATA names)")
    parser.add_argument("--data", choices=["cifar10", "synthetic"], default="cifar10", help="default: cifar10")
    parser.add_argument("--download", type=path, metavar="DIR", help="fetch the official python archive into DIR first")
    options = parser.parse_args(arguments)

    def work() -> int:
        place = cifar10_archives.download(options.download) if options.download else options.data_dir
        data = datasets.load(place, options.data)
        print(data.origin)
        for name, digest in data.hashes().items():
            array = getattr(data, name)
            print(f"  {name:<13} {array.shape!s:<18} {array.dtype!s:<6} sha256 {digest}")
        return 0

    return exit_status("get_cifar10", work, "nothing was kept", "nothing was kept")


if __name__ == "__main__":
    sys.exit(main())
