"""How both trainers start, resume and end a run.

A trainer makes a TrainingRun from its command line. If is_done, it calls end_without_training(), else it trains:

    data = run.load_data()
    with run.claimed():
        run.begin()
        ...
"""
import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from twba_nets import datasets
from twba_nets.runs import card, journal, npz, provenance, recipe as recipes, run_folder
from twba_nets.system import files, places
from twba_nets.system.arrays import Arrays, read_npz
from twba_nets.datasets.dataset import Dataset
from twba_nets.network.architecture import Architecture
from twba_nets.system.errors import UserError
from twba_nets.system.files import Content
from twba_nets.runs.model import Model, open_model, require_activation, require_same
from twba_nets.runs.recipe import Recipe


class Found(NamedTuple):
    """The checkpoints that a trainer finds at its start.

    start: the checkpoint to continue from, None for a fresh start. epoch: its number of finished epochs, None if it does not
    say, as the original's. newest: the newest checkpoint in the output folder, None if there is none.
    """
    start: Optional[Path]
    epoch: Optional[int]
    newest: Optional[Path]


class TrainingRun:
    """A run, made from the flags that both trainers share.

    folder: the run's. start: the checkpoint that it continues from, or None. first_epoch: the first to train, counted from 0.
    initial: the variables of the checkpoint that --initial-weights names, name -> array, or None. teachers: the models
    that --teacher names. recipe: the run's. chief: whether this process, of several, writes and prints.
    """

    def __init__(self, recipe: Recipe, args: argparse.Namespace, read_latent: Callable[[Path, Architecture], Tuple[Arrays, str]],
                 locate: Callable[[Path], Path] = run_folder.locate, chief: bool = True):
        """recipe: the default, which the checkpoint and the command line (args) override.

        read_latent: returns a checkpoint's variables and the sha256 of their file (npz.read_latent).
        locate: returns the checkpoint that a path names, in a form that this framework can resume; raises UserError.
        Raises UserError if the run cannot be started or resumed in this folder.
        """
        self.args, self.folder, self.locate, self.chief = args, args.output, locate, chief
        self.found = self._look()
        self.start = self.found.start
        self.first_epoch = self._first_epoch()
        weights = self._locate_weights(places.model(args.initial_weights)) if args.initial_weights else None
        self.recipe, self.initial = choose_recipe(recipe, self.start, args, self.first_epoch, weights), None
        if weights:
            self.initial, sha256 = read_latent(weights, self.recipe.architecture)
            self.recipe = self.recipe.with_initial_weights(weights, sha256)
        self.teachers = self._open_teachers()
        journal.read_log(self.folder)  # finds damage before training
        for folder in (self.folder, self.start.parent if self.start else self.folder):
            provenance.read(folder)

    def _look(self) -> Found:
        newest = run_folder.newest(self.folder)
        start = self._starting_point(newest)
        return Found(start, run_folder.epoch_of(start) if start else None, newest)

    def _starting_point(self, newest: Optional[Path]) -> Optional[Path]:
        resume = self.args.resume  # True, False or a path
        if resume is True:
            if newest is None:
                raise UserError(f"{self.folder}: has no checkpoint to resume: leave --resume out to start a run")
            return self.locate(self.folder)
        start = self.locate(resume) if resume else None
        if newest and not (start and self._is_in_folder(start)):
            raise UserError(f"{self.folder}: holds a run already ({newest.name}): continue it with --resume, or name another "
                            "folder with --output")
        if not newest and (self.folder / run_folder.MODEL_NAME).exists():
            raise UserError(f"{self.folder}: holds a model already ({run_folder.MODEL_NAME}): name another folder with "
                            "--output")
        return start

    def _locate_weights(self, source: Path) -> Path:
        """The checkpoint that --initial-weights names. It may be a model.npz, all that a folder of twba_torch.save holds."""
        saved = source / run_folder.MODEL_NAME
        if source.suffix == ".npz" and source.name != run_folder.TRAINING_NAME and source.is_file():
            return source
        return saved if saved.exists() and run_folder.newest(source) is None else self.locate(source)

    def _is_in_folder(self, path: Path) -> bool:
        return path.parent.resolve() == self.folder.resolve()

    def _first_epoch(self) -> int:
        if self.start is None:
            return 0
        if self.found.epoch is not None:
            return self.found.epoch
        if self.chief:
            print(f"note: {self.start} holds no epoch, like the original's checkpoints: continuing from epoch "
                  f"{self.args.initial_epoch} (--initial-epoch)")
        return self.args.initial_epoch

    def _open_teachers(self) -> List[Model]:
        """The models that --teacher names, a flag of PyTorch's trainer. Adds them to the recipe.

        Raises UserError if a resumed run had other teachers, or if one does not fit the network.
        """
        named, stored = getattr(self.args, "teacher", None) or [], self.recipe.teacher
        if not named:
            return []
        contents = [read_npz(run_folder.locate_npz(places.model(name)), npz.REMEDY) for name in named]
        self.recipe = self.recipe.with_teachers([(content.path, files.sha256(content)) for content in contents])
        if self.start:
            self._require_same_teachers(stored or ())
        return [self._teacher(content) for content in contents]

    def _require_same_teachers(self, stored: Sequence[Dict[str, str]]) -> None:
        named = self.recipe.teacher or ()
        if [record["sha256"] for record in named] != [record["sha256"] for record in stored]:
            raise UserError(f"{self.start}: had {_files(stored) or 'none'} as --teacher, not {_files(named)}: name the same, in "
                            "this order, or start another run")

    def _teacher(self, content: Content) -> Model:
        if not card.about_beside(content.path, card.read(content)):
            with npz.opened(content):  # a better error for an exported network
                pass
            raise UserError(f"{content.path}: cannot teach without its card, model.json, beside it: name a run's folder, or put "
                            "the card there")
        model = open_model(content)
        for name in ("image_size", "channels", "classes"):
            theirs, ours = (getattr(recipe.architecture, name) for recipe in (model.about, self.recipe))
            if theirs != ours:
                raise UserError(f"{content.path}: cannot teach this network: its {name} is {theirs}, not {ours}: "
                                "name another")
        return model

    def require_teachers(self) -> None:
        """Raise UserError if the recipe has teachers and the command line names none."""
        if self.recipe.teacher and not self.teachers:
            raise UserError(f"{self.start}: learns from a teacher ({_files(self.recipe.teacher)}): name it with --teacher")

    @property
    def is_done(self) -> bool:
        """Whether there is no epoch left to train."""
        return self.first_epoch >= self.recipe.epochs

    def end_without_training(self, complete: Callable[[Recipe], None]) -> None:
        """End a run that is done; first complete it if it was killed during its last save.

        complete(recipe) writes model.npz, the learning curve and the card of a run with that recipe.
        """
        if not self.chief:
            return
        recipe = self._cut_short()
        if recipe:
            with self.claimed():
                complete(recipe)
            print(f"{self.folder}: completed: model.npz, its card and the learning curve")
        print(f"{epochs_done(self.start, self.first_epoch, self.recipe)}; to train longer, give a higher --epochs")

    def _cut_short(self) -> Optional[Recipe]:
        """The stored recipe of a run whose last save was cut short, else None. Flags do not change a finished run."""
        recipe, newest = card.load_recipe(self.start) if self.start else None, self.found.newest
        if not self.start or not recipe or recipe.epochs != self.first_epoch or not newest or not self._is_in_folder(self.start):
            return None
        is_newest = run_folder.epoch_of(newest) == self.found.epoch
        return recipe if is_newest and journal.is_cut_short(self.folder, self.first_epoch) else None

    def load_data(self) -> Dataset:
        """The recipe's data set, reduced to the images that it trains and tests on. Raises UserError if there are too few."""
        source = str(self.args.data or self.recipe.source)
        architecture = self.recipe.architecture
        data = datasets.load(source, architecture.picture_shape, architecture.classes, self.args.data_dir)
        self.recipe = recipe = self.recipe.with_loaded(data, source)
        for teacher in self.teachers:
            datasets.require_same_classes(teacher.path, teacher.about.class_names, source, data.class_names)
        if recipe.mirror is not None:
            data = data._replace(flip=recipe.mirror)
        if recipe.hold_out:
            left = len(data.x_train) - recipe.hold_out
            if left < recipe.batch_size:
                raise UserError(f"--hold-out {recipe.hold_out}: {recipe.dataset} has {len(data.x_train)} training images, and a "
                                f"batch needs {recipe.batch_size}: hold out fewer")
            for chosen in (data.y_train[:left], data.y_train[left:]):
                datasets.warn_if_sorted(source, data.y_train, chosen)
            data = data._replace(x_train=data.x_train[:left], y_train=data.y_train[:left],
                                 x_test=data.x_train[left:], y_test=data.y_train[left:])
        limits = {"train": recipe.limit_train, "test": recipe.limit_test}
        for part, limit in limits.items():
            images = len(getattr(data, f"x_{part}"))
            if limit and limit > images:
                raise UserError(f"--limit-{part} {limit}: {recipe.dataset} has {images} such images: leave it out for all")
            labels = getattr(data, f"y_{part}")
            datasets.warn_of_empty_classes(source, part, labels, data.class_names)
            datasets.warn_if_sorted(source, labels, labels[:limit])
        return data._replace(**{f"{array}_{part}": getattr(data, f"{array}_{part}")[:limit]
                                for part, limit in limits.items() for array in "xy"})

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Lock the run's folder (files.claimed). Raises UserError if another process has just trained into it."""
        with files.claimed(self.folder):
            if self._look() != self.found:
                raise UserError(f"{self.folder}: another process has just trained into this folder: start again")
            yield

    def begin(self, *details: object) -> None:
        """Write the recipe and print how the run is trained. details: printed at the end."""
        recipe = self.recipe
        recipe.save(self.folder)
        card.warn_of_many_synapses(recipe.architecture)
        if self.start and not self._is_in_folder(self.start):
            with contextlib.suppress(FileNotFoundError):
                (self.folder / journal.LOG_NAME).unlink()  # another run's, whose checkpoint is gone
        if self.start:
            provenance.carry(self.start.parent, self.folder, self.first_epoch)
        print(f"{self.folder}: {recipe.title}, now epochs {self.first_epoch + 1} to {recipe.epochs}, batch size "
              f"{recipe.batch_size}, seed {recipe.seed}" + "".join(f", {detail}" for detail in details), flush=True)


def _files(records: Sequence[Dict[str, str]]) -> str:
    return ", ".join(record["file"] for record in records)


def epochs_done(path: Optional[Path], epochs: int, recipe: Recipe) -> str:
    """The last line of a run, or of a part of it."""
    return f"{path}: {epochs} of {recipe.epochs} epochs are done"


def choose_recipe(recipe: Recipe, start: Optional[Path], args: argparse.Namespace, first_epoch: int,
                  weights: Optional[Path] = None) -> Recipe:
    """The recipe of the resumed run, else the data set's, else the script's; with the command line's changes.

    start: the checkpoint of the resumed run, or None. weights: the checkpoint that --initial-weights names, or None.
    Raises UserError if the command line contradicts the checkpoint's recipe.
    """
    variant, stored = recipe.variant, card.load_recipe(start) if start else None
    if args.dataset and stored and stored.data:
        raise UserError(f"{start}: was trained on your own data: leave --dataset out, or start another run")
    if args.data and stored and not stored.data:
        raise UserError(f"{start}: was trained on {stored.dataset}, not on your own data: leave --data out, or start another "
                        "run")
    if start and stored:
        require_same(stored, start, variant=variant, activation=args.activation, dataset=args.dataset, seed=args.seed,
                     limit_train=args.limit_train, limit_test=args.limit_test, hold_out=args.hold_out,
                     architecture=args.architecture)
        recipe = stored
    elif args.dataset and (args.dataset != recipe.dataset or recipe.data):
        recipe = recipes.of(variant, args.dataset)
    if start and not stored:
        require_activation(start, args.activation)
    given = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(Recipe)
             if field.name not in ("variant", "dataset", "data", "initial_weights", "teacher")}
    recipe = dataclasses.replace(recipe, **{name: value for name, value in given.items() if value is not None})
    if args.data and not stored:
        recipe = recipe.with_data(args.data)
    if args.learning_rate is not None:
        recipe = recipe.with_learning_rate(args.learning_rate, first_epoch)
    if stored and args.learning_rate_steps is not None:
        recipe = dataclasses.replace(recipe, learning_rate_steps=stored.learning_rate_steps).with_steps(
            args.learning_rate_steps, first_epoch)
    if args.linear_decay is not None and not (stored and recipe.decays_from(args.linear_decay, first_epoch)):
        recipe = recipe.with_linear_decay(args.linear_decay, first_epoch)
    if weights:
        _check_weights(weights, recipe, start)
    return recipe


def _check_weights(weights: Path, recipe: Recipe, start: Optional[Path]) -> None:
    """Raise UserError if a run cannot start from the weights of this checkpoint."""
    if start:
        raise UserError(f"{weights}: --initial-weights begins a run, but {start} resumes one: leave out one of the two, or "
                        "name another folder with --output")
    stored = card.about_beside(weights, card.read(weights))
    if stored:
        require_same(stored, weights, variant=recipe.variant, architecture=recipe.architecture)
