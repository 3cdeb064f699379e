"""Is a step slower than its authors' code: python -m benchmarks.authors with --dverge, --trs or --parl=PATH.

PATH is a copy of github.com/zjysteven/DVERGE, which has DVERGE's own trainer and others of GAL, ADP and
adversarial training, of github.com/AI-secure/Transferability-Reduced-Smooth-Ensemble, which has TRS's own,
or of github.com/shubhishukla10/PARL, whose notebook has PARL's. Their trainers run as they are, on their
own ResNet-20; divtf trains the paper's by the same number of inner steps. All are timed in turn on one
batch of the same images. DVERGE's layer, which it draws at random, is the middle one. Needs PyTorch beside
divtf. The machine should do nothing else.
"""

import contextlib
import io
import json
import sys
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

from absl import app, flags

from benchmarks.steps import Steps
from benchmarks.timing import Row, medians, write_tables
from divtf import make_objective
from divtf.errors import require

# What the trainers import for data, logs and attacks of their own, none of which a step needs.
_UNUSED = (
    *("torchvision", "torchvision.transforms", "torch.utils.tensorboard", "tensorboardX"),
    *("advertorch", "advertorch.attacks", "advertorch.attacks.utils", "advertorch.utils"),
)
# Defaults of their command lines, the same as of the objectives here.
_DVERGE = {
    **{"epochs": 200, "sch_intervals": [100, 150], "lr_gamma": 0.1, "depth": 20, "plus_adv": False},
    **{"distill_eps": 0.07, "distill_alpha": 0.007, "distill_steps": 10, "distill_fixed_layer": True},
    **{"distill_layer": 10, "distill_rand_start": False, "distill_momentum": True, "dverge_coeff": 1.0},
    **{"lambda": 0.5, "beta": 0.5, "eps": 8 / 255, "alpha": 2 / 255, "steps": 10},
}
_TRS = {
    **{"epochs": 120, "num_models": 3, "coeff": 2.0, "lamda": 2.0, "scale": 5.0, "plus_adv": True},
    **{"adv_eps": 0.2, "init_eps": 0.1, "print_freq": 10},
}
_MEMBERS = 3  # TRS's trainer takes no other number.
Step = Callable[[], object]
# From where their code lies and a batch, images [n, 3, 32, 32] and labels [n], to steps by objective.
Authors = Callable[[Path, tuple], dict[str, Step]]


def imported(path: Path) -> None:
    """Put authors' code in reach of imports, with nothing in place of what it does not need here."""
    import torch

    sys.path.insert(0, str(path))
    sys.modules.update(dict.fromkeys(_UNUSED, mock.MagicMock()))
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self: self  # The trainers ask for a GPU.


def of_dverge(path: Path, batch: tuple) -> dict[str, Step]:
    """A training step by each of the trainers in DVERGE's code; of one batch their epoch is one step."""
    imported(path)
    import torch
    from models.resnet import ResNet
    from train import train_adp, train_adv, train_dverge, train_gal

    def members():
        return [ResNet(depth=20, leaky_relu=True) for _ in range(_MEMBERS)]

    def with_optimizers(trainer):
        models = members()
        optimizers = [torch.optim.SGD(m.parameters(), 0.1, 0.9, weight_decay=1e-4) for m in models]
        schedulers = [torch.optim.lr_scheduler.MultiStepLR(each, [100, 150]) for each in optimizers]
        return trainer(models, optimizers, schedulers, [batch], [], mock.MagicMock(), **_DVERGE)

    def with_its_own(trainer, **values):
        return trainer(members(), [batch], [], mock.MagicMock(), **(_DVERGE | values))

    trainers = {
        "gal": with_its_own(train_gal.GAL_Trainer),
        "adp": with_its_own(train_adp.ADP_Trainer, alpha=2.0),
        "dverge": with_optimizers(train_dverge.DVERGE_Trainer),
        "adversarial": with_optimizers(train_adv.Adversarial_Trainer),
    }
    return {name: lambda trainer=trainer: trainer.train(1) for name, trainer in trainers.items()}


def of_trs(path: Path, batch: tuple) -> dict[str, Step]:
    """A training step by TRS's trainer."""
    imported(path)
    import torch
    from models.cifar_resnet import ResNet
    from train.Empirical import trainer

    members = [ResNet(depth=20, num_classes=10) for _ in range(_MEMBERS)]
    parameters = [weights for member in members for weights in member.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.001, weight_decay=1e-4, eps=1e-7)
    criterion, device = torch.nn.CrossEntropyLoss(), torch.device("cpu")
    options = types.SimpleNamespace(**_TRS)
    given = (criterion, optimizer, 1, device, mock.MagicMock())
    return {"trs": lambda: trainer.TRS_Trainer(options, [batch], members, *given)}


def of_parl(path: Path, batch: tuple) -> dict[str, Step]:
    """A training step by PARL's trainer: its notebook without the cells that fetch images and train."""
    imported(path)
    import torch

    notebook = json.loads((path / "train_parl.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    defined = [cell for cell in cells if cell.startswith(("import ", "device ", "class ", "def "))]
    theirs: dict = {}
    exec("\n".join(defined), theirs)  # What the user's copy of their code says.
    members = theirs["PARLModel"](n_ensemble=_MEMBERS)
    members.init_weights()
    loss = theirs["PARLLoss"](n_layers=5, gamma=0.25)
    optimizer = torch.optim.Adam(members.parameters(), lr=0.001)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [25, 40])
    given = (members, [batch], [], 1, loss, scheduler, optimizer)
    return {"parl": lambda: theirs["train"](*given, io.BytesIO())}


def quietly(step: Step) -> Step:
    """The step without its authors' lines of progress."""

    def call():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            step()

    return call


def measure(
    theirs: Callable[[Path, tuple], dict[str, Step]], path: Path, batch: int, repeats: int
) -> list[Row]:
    """Each objective's step over that of the authors' code."""
    import torch

    steps = Steps("resnet20", batch)
    images = torch.tensor(steps.x).permute(0, 3, 1, 2).contiguous()
    authors = theirs(path, (images, torch.tensor(steps.y)))
    timed = {f"{name}, theirs": quietly(step) for name, step in authors.items()}
    timed |= {f"{name}, ours": steps.training(make_objective(name), _MEMBERS) for name in authors}
    seconds = medians(timed, repeats)
    rows = [Row(f"{name}, s", value) for name, value in seconds.items()]
    ratios = {name: seconds[f"{name}, ours"] / seconds[f"{name}, theirs"] for name in authors}
    return [*rows, *(Row(f"{name}, ours / theirs", ratio, 1.0) for name, ratio in ratios.items())]


def main() -> None:
    given = flags.FLAGS
    require(find_spec("torch") is not None, "PyTorch: pip install torch", "no torch in this Python")
    kinds = {
        "DVERGE": (given.dverge, "models/ensemble.py", of_dverge),
        "TRS": (given.trs, "models/ensemble.py", of_trs),
        "PARL": (given.parl, "train_parl.ipynb", of_parl),
    }
    asked = {name: kind for name, kind in kinds.items() if kind[0]}
    require(len(asked) == 1, "one of --dverge=PATH, --trs=PATH and --parl=PATH", ", ".join(asked) or "none")
    ((name, (path, file, theirs)),) = asked.items()
    require(Path(path, file).is_file(), f"a copy of {name}'s code", path)
    tables = {name: measure(theirs, Path(path), given.batch_size, given.repeats)}
    import torch

    budget = {"members": _MEMBERS, "batch size": given.batch_size, "rounds": given.repeats}
    budget |= {"PyTorch": torch.__version__, "its threads": torch.get_num_threads()}
    write_tables(Path(given.output + f"_{name.lower()}"), f"Steps beside {name}'s code", budget, tables)


if __name__ == "__main__":
    flags.DEFINE_string("dverge", "", "A copy of DVERGE's code.")
    flags.DEFINE_string("trs", "", "A copy of TRS's code.")
    flags.DEFINE_string("parl", "", "A copy of PARL's code.")
    flags.DEFINE_integer("batch_size", 64, "Images a step.", lower_bound=2)
    flags.DEFINE_integer("repeats", 7, "Timed rounds, after two that are not counted.", lower_bound=1)
    flags.DEFINE_string("output", "benchmarks/results/authors", "Write PATH_NAME.json and PATH_NAME.md.")
    app.run(lambda _: main())
