"""A quarter-width ResNet-20 from scratch, by the labels alone and by ResNet-20 too, in the same time.

Each way of learning is timed for some steps first, and gets as many epochs as fit the time, in which the teacher is
asked too; export and testing are not counted. ``--choosing`` judges on 5,000 training images that take no part,
which is how what the plans fix was chosen.

    python benchmarks/distillation.py --minutes 10 --json rows.json
"""

import math
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from time import process_time
from typing import Any

import torch
from environment import arguments, report
from log import Log
from models.cifar_resnet import quarter
from size import network, samples

import whit
from whit import AttentionTransfer, Data, Distill, Finetune
from whit.progress import Bar

STAGES = ("layer1", "layer2", "layer3")
WAYS = {
    "labels": None,
    "logits": Distill(weight=0.9, temperature=4.0),
    "logits, asked once": Distill(weight=0.9, temperature=4.0, once=True),
    "decoupled": Distill(weight=0.5, temperature=4.0, decoupled=2.0),
    "attention": Distill(weight=0.9, temperature=4.0, hints=AttentionTransfer(layers=STAGES, strength=1.0)),
}
TIMED = 40
"""Steps to time each way by."""
STEP, TRAINING = "step 1 of 1: Finetune", "fine-tuning"
"""What whit calls the step of the plan, and what of it is training."""


class Clock(Log):
    """A log that knows how much processor time everything took."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.spent: dict[str, float] = {}

    @contextmanager
    def bar(self, what: str, total: float) -> Generator[Bar]:
        """One thing that is under way."""
        start = process_time()
        with super().bar(what, total) as line:
            yield line
        self.spent[what] = process_time() - start


def main() -> None:
    """Train each way and print the table."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="processor time of each training")
    parser.add_argument(
        "--ways", default="labels;logits;logits, asked once", help=f"with semicolons between: {'; '.join(WAYS)}"
    )
    parser.add_argument("--seeds", default="0", help="comma-separated: of the weights and of the order of the images")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--choosing", action="store_true", help="judge on training images that were held out")
    options = parser.parse_args()
    data = samples(choosing=options.choosing)
    rows: list[dict[str, Any]] = []
    for seed in map(int, options.seeds.split(",")):
        for way in options.ways.split(";"):
            rows.append(trained(way, seed, options, data))
            print(rows[-1], flush=True)
    report(rows, options.json)


def trained(way: str, seed: int, options: Any, data: Data) -> dict[str, Any]:
    """One row."""
    step = Finetune(
        epochs=1,
        learning_rate=0.1,
        optimizer="sgd",
        weight_decay=1e-4,
        augment=("flip", "shift"),
        precision=options.precision,
        distill=WAYS[way],
        seed=seed,
    )
    before, each = seconds(step, data)
    if before >= 60 * options.minutes:
        sys.exit(f"{way}: the teacher alone takes {before / 60:.1f} minutes to be asked; give --minutes more")
    epochs = (60 * options.minutes - before) * step.batch_size / (each * len(data.train))
    torch.manual_seed(seed)
    clock = Clock(60)
    result = run(replace(step, epochs=epochs), data, clock)
    return {
        "student": "quarter-width ResNet-20",
        "way": way,
        "seed": seed,
        "epochs": epochs,
        "minutes": clock.spent[STEP] / 60,
        "accuracy": result.after.quality,
        "parameters": result.after.parameters,
    }


def seconds(step: Finetune, data: Data) -> tuple[float, float]:
    """Processor time before the first step and of each step, by the difference of two short trainings."""
    found: list[Clock] = []
    for count in (1, 1 + TIMED):
        found.append(Clock(math.inf))
        short = replace(step, epochs=count * step.batch_size / len(data.train))
        run(short, replace(data, test=data.test.first(256)), found[-1])
    few, many = (clock.spent[TRAINING] for clock in found)
    return found[-1].spent[STEP] - many, (many - few) / TIMED


def run(step: Finetune, data: Data, clock: Clock) -> whit.Result[Any]:
    """Train a fresh student."""
    teacher = network("resnet20") if step.distill is not None else None
    return whit.compress(quarter(), step, data=data, teacher=teacher, progress=clock)


if __name__ == "__main__":
    main()
