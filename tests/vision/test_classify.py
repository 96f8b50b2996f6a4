"""Training and using classifiers, by commands and from Python."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from commands import Forked, command, wait_for
from PIL import Image
from sklearn import metrics

import circuitsim as cs
from circuitsim import classify
from circuitsim.classify import main
from circuitsim.files.locks import locked
from circuitsim.vision import checkpoints, datasets, parallel, pictures, training
from circuitsim.vision.augmentation import augmented, channel_statistics, prepared
from circuitsim.vision.datasets import Dataset, ImageSet
from circuitsim.vision.estimator import load
from circuitsim.vision.evaluation import confusion, hits
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import Sharing, layer_snr_w
from circuitsim.vision.training import Diverged, Training, split

SMALL = ["--width", 4, "--jobs", 1]


def classes(number, seed, n_classes=4):
    """Images of noise around one pattern for each class."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).integers(60, 196, (n_classes, 9, 8, 3))
    labels = np.arange(number) % n_classes
    noise = rng.normal(0, 40, (number, 9, 8, 3))
    return ImageSet(np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def data():
    return Dataset("digits", classes(300, 1), classes(60, 2), ("a", "b", "c", "d"))


def described(data, connectivity="lc", **options):
    options = {"epochs": 3, "batch_size": 32, **options}
    sharing = Sharing("circuit", presentations=20) if "share_every" in options else None
    return Run.new(data, Training(**options), sharing, connectivity=connectivity, width=3)


def trained(of, data, directory, **options):
    directory.mkdir(exist_ok=True)
    trainer = of.trainer(data)
    of.write(directory, {})
    with parallel.threads(1):
        trainer.resume(directory)
        trainer.run(directory, **{"advanced": lambda _: None, **options})
    return trainer


def stored(directory):
    """All that a run's directory holds, but seconds."""
    with np.load(directory / "checkpoint.npz") as arrays:
        content = {name: arrays[name].tobytes() for name in arrays if name != "progress"}
        progress = json.loads(bytes(arrays["progress"]))
    for row in progress["history"]:
        assert row.pop("seconds") > row.pop("seconds_asleep") >= 0
    history = xr.load_dataset(directory / "history.nc", engine="h5netcdf")
    return (
        content,
        progress,
        history.drop_vars(["seconds", "seconds_asleep"]).drop_attrs(deep=False),
    )


def assert_same_run(directory, other):
    (a, progress, history), (b, other_progress, other_history) = map(stored, (directory, other))
    assert a == b
    assert progress == other_progress
    xr.testing.assert_identical(history, other_history)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "finished"
    trained(described(data), data, directory)
    return directory


# --- training -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.drawn
def test_digits_are_learned_by_the_command(tmp_path, capsys):
    """The command as in the README, and what follows from it."""
    directory = tmp_path / "run"
    arguments = ["train", *SMALL, "--epochs", 8, "--learning-rate", 0.02, "--sharing", "instant",
                 "--share-every", 5]  # fmt: skip
    assert classify.main([*map(str, arguments), "--output", str(directory)]) == 0
    printed = capsys.readouterr().out
    history = xr.load_dataset(directory / "history.nc", engine="h5netcdf")
    row = next(line for line in printed.splitlines() if line.startswith("  8/8"))
    scores = [float(history[f"{p}_loss"][-1]) for p in ("train", "validation", "test")]
    assert [float(text) for text in row.split()[1:8:3]] == pytest.approx(scores, abs=6e-5)
    assert history.sizes == {"epoch": 8, "layer": 4}
    assert history.train_loss[-1] < history.train_loss[0] / 2
    assert (history.test_top5 >= history.test_top1).all()
    assert json.loads(history.run)["training"]["epochs"] == 8
    assert "units" not in history.test_top1.attrs  # or every plot would say "[1]"
    assert Image.open(directory / "training.png").size[0] > 1000

    digits = datasets.load("digits")
    classifier = cs.vision.load(directory)
    score = classifier.score(digits.test.images, digits.test.labels)
    assert score == history.test_top1[-1]
    assert score > 0.8  # a linear classifier reaches 0.95, chance 0.1
    found = classifier.predict_proba(digits.test.images)
    assert found.sum(axis=1) == pytest.approx(1)
    predicted = classifier.predict(digits.test.images)
    assert np.array_equal(predicted, found.argmax(axis=1))

    assert classify.main(["evaluate", str(directory), "--output", str(tmp_path / "m.csv")]) == 0
    assert f"top-1 {100 * score:.2f} %" in capsys.readouterr().out
    rows = (tmp_path / "m.csv").read_text().splitlines()
    expected = metrics.confusion_matrix(digits.test.labels, predicted)
    assert [list(map(int, row.split(",")[1:])) for row in rows[1:]] == expected.tolist()

    picture = tmp_path / "digit.png"
    Image.fromarray(digits.test.images[3, :, :, 0]).save(picture)
    assert classify.main(["predict", str(directory), str(picture), "--top", "1"]) == 0
    name, chance = classifier.class_names[predicted[3]], 100 * found[3].max()
    assert capsys.readouterr().out == f"{picture}: {name} {chance:.1f} %\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "stopped_at",
    [
        1,
        pytest.param(8, marks=pytest.mark.thorough),
        9,
        pytest.param(20, marks=pytest.mark.thorough),
    ],
)
def test_an_interrupted_training_goes_on_to_the_same_numbers(data, tmp_path, stopped_at):
    """In the middle of epochs too, with momenta, sleep, crops, flips and repetitions."""
    of = described(
        data, optimiser="sgd", learning_rate=0.02, schedule="step", crop_padding=2, flips=True,
        repetitions=2, share_every=3, validation=0.2,
    )  # fmt: skip
    trained(of, data, tmp_path / "whole")
    calls = []

    def stop(progress):
        calls.append(progress)
        if len(calls) == stopped_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(of, data, tmp_path / "parts", advanced=stop, checkpoint_every=-1.0)
    found = checkpoints.read_progress(tmp_path / "parts")
    if stopped_at > 1:
        assert found["batches"] > 0
    again = trained(Run.read(tmp_path / "parts"), data, tmp_path / "parts")
    assert again.progress.finished
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    # As if killed between the last checkpoint and the last history.
    (tmp_path / "parts" / "history.nc").unlink()
    trained(of, data, tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.thorough
def test_a_killed_process_goes_on_to_the_same_numbers(tmp_path, capsys):
    arguments = ["train", *SMALL, "--epochs", 12, "--sharing", "instant", "--share-every", 7]
    whole, victim = tmp_path / "whole", tmp_path / "victim"
    assert classify.main([*map(str, arguments), "--output", str(whole)]) == 0
    process = Forked(command(*arguments, "--output", victim, module="classify"))
    wait_for(lambda: (victim / "history.nc").exists(), step=0.002)
    process.kill()
    process.wait()
    progress = checkpoints.read_progress(victim)
    assert 1 <= progress["epoch"] < 12
    # With another number of threads, and the options that it had.
    assert classify.main(["train", "--output", str(victim), "--resume", "--jobs", "2"]) == 0
    assert f"going on after {progress['epoch']} epochs" in capsys.readouterr().out
    assert_same_run(whole, victim)
    files = ["run.json", "checkpoint.npz", "history.nc", "training.png", ".lock"]
    assert sorted(p.name for p in victim.iterdir()) == sorted(files)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_tells_how_to_go_on(tmp_path, sent, code):
    directory = tmp_path / "run"
    arguments = ["train", *SMALL, "--epochs", 10_000, "--output", directory]
    process = Forked(command(*arguments, module="classify"), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (directory / "history.nc").exists())
    process.send_signal(sent)
    _, message = process.communicate(timeout=300)
    assert process.returncode == code
    assert "--resume goes on from there" in message
    assert len(message.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_training(data, tmp_path, capsys):
    of = described(data, connectivity="conv")
    of = replace(of, training=replace(of.training, learning_rate=1e20, schedule="constant"))
    with pytest.raises(Diverged, match=r"in epoch 1, batch \d.*learning rate 1e\+20"):
        trained(of, data, tmp_path / "python")
    assert not (tmp_path / "python" / "checkpoint.npz").exists()
    output = tmp_path / "run"
    wild = ["train", *map(str, SMALL), "--learning-rate", "1e30", "--output", str(output)]
    assert classify.main(wild) == 1
    message = capsys.readouterr().err
    assert "the loss became" in message
    assert "try a lower --learning-rate; no checkpoint" in message
    # Nothing is lost by trying again with another rate.
    assert classify.main([*wild, "--learning-rate", "0.001", "--epochs", "1"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "notes"),
    [
        ("--sharing instant --share-every 10", ["no two positions of layer3, layer4 see"]),
        ("--sharing instant --share-every 11", ["every 11 batches and the training has 10"]),
        (
            "--sharing mean_subtracted --share-every 10 --border awake",
            [
                "no two positions of layer1, layer2, layer3, layer4 see",
                "or borders that sleep too may help",
            ],
        ),
        ("--sharing mean_subtracted --share-every 10", ["no two positions of layer3, layer4 see"]),
        ("", []),
    ],
)
def test_sleep_that_does_nothing_is_noted(options, notes, tmp_path, capsys):
    command = f"train --width 2 --epochs 1 --output {tmp_path / 'run'} {options}"
    assert classify.main(command.split()) == 0
    said = capsys.readouterr().err
    assert all(note in said for note in notes)
    assert said.count("note:") == bool(notes)


def test_repetitions_are_crops_of_the_same_images(data, tmp_path, monkeypatch):
    batches = []
    crops = training.Trainer._crops

    def watched(self, chosen, rng, *more):
        batches.append(chosen)
        return crops(self, chosen, rng, *more)

    monkeypatch.setattr(training, "MEASURED", 0)
    monkeypatch.setattr(training.Trainer, "_crops", watched)
    options = {"epochs": 2, "batch_size": 60, "repetitions": 3, "validation": 0.0}
    trained(described(data, **options), data, tmp_path / "run")
    assert len(batches) == 2 * 15
    for batch in batches:
        assert np.unique(batch, return_counts=True)[1].tolist() == [3] * 20
    for epoch in (batches[:15], batches[15:]):  # each sees every image
        assert np.unique(epoch).size == 300


@pytest.mark.slow
def test_two_processes_do_not_train_the_same_run(tmp_path, capsys):
    output = tmp_path / "run"
    assert classify.main(["train", *map(str, SMALL), "--epochs", "1", "--output", str(output)]) == 0
    with locked(output / ".lock"):
        assert classify.main(["train", "--output", str(output), "--resume"]) == 2
    said = capsys.readouterr().err
    assert "another process is training it" in said
    assert f"process {os.getpid()} on" in said
    assert str(output / ".lock") in said


def test_a_sleep_is_that_of_sharing(data, tmp_path):
    """One batch with a sleep after it, against one without, shared by hand."""
    options = {"epochs": 1, "batch_size": 300, "validation": 0.0}
    awake = trained(described(data, **options), data, tmp_path / "awake")
    asleep = trained(described(data, **options, share_every=1), data, tmp_path / "asleep")
    layers = asleep.network.lc_layers()
    for name, layer in awake.network.lc_layers().items():
        sharing = Sharing("circuit", presentations=20)
        # One batch at the rate of the first: sleeps are not shorter yet.
        expected = sharing.share(layer.weights, layer.geometry, asleep._sleep_seed(1))
        assert np.array_equal(layers[name].weights, expected)
        assert asleep.progress.history[0]["snr_w"][name] == pytest.approx(
            layer_snr_w(expected, layer.geometry), nan_ok=True
        )
    for name, p in awake.network.parameters().items():
        if "layer" not in name:
            assert np.array_equal(p, asleep.network.parameters()[name])
    assert not np.array_equal(layers["layer1"].weights, awake.network.lc_layers()["layer1"].weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, 0 * y + 2), r"labels: must be of two classes or more.*all 2"),
        (lambda x, y: (np.where(x == x[5], np.nan, x), y), r"images: must be finite.*nan_to_num"),
    ],
)
def test_images_and_labels_that_mean_nothing_are_refused(change, message, data):
    images, labels = change(data.train.images.astype(np.float32), data.train.labels)
    bad = replace(data, train=ImageSet(images.astype(np.float32), labels))
    with pytest.raises(cs.ParameterError, match=message):
        described(bad).trainer(bad)


def test_one_class_alone_is_refused(data):
    with pytest.raises(cs.ParameterError, match="dataset: must have two classes or more"):
        described(Dataset("digits", *(ImageSet(i.images, 0 * i.labels) for i in (data.train,) * 2),
                          ("a",)))  # fmt: skip


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("moments", ["own", "shared"])
def test_what_an_optimiser_remembers_is_shared_where_asked(moments, optimiser, data):
    run = described(data, epochs=1, batch_size=100, validation=0.0, share_every=3,
                    optimiser=optimiser)  # fmt: skip
    trainer = replace(run, sharing=Sharing("instant", moments=moments)).trainer(data)
    trainer.run(None, lambda _: None)
    layer = trainer.network.lc_layers()["layer1"]
    for moment in trainer._optimiser.moments:
        memory = trainer._optimiser.state[f"{moment}.layer1.weights"]
        assert memory.any()
        alike = layer_snr_w(memory.astype(float), layer.geometry) > 1e9
        assert alike == (moments == "shared")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Half a cosine over 9 batches, of which 4 are before each sleep, and 1 after the last.
        ({}, [np.mean(np.cos(np.pi / 18 * np.arange(n, n + 4)) ** 2) for n in (0, 4)]),
        ({"sleep_length": "constant"}, [1, 1]),
        ({"schedule": "constant"}, [1, 1]),
        ({"schedule": "step", "milestones": (2,)}, [1, (1 + 1 + 0.25 + 0.25) / 4]),
    ],
)
def test_sleeps_grow_shorter_as_less_is_learned(options, expected, data, tmp_path, monkeypatch):
    lengths, seeds = [], []

    def share(self, weights, geometry, seed, length=1.0, out=None):
        lengths.append(length)
        seeds.append(tuple(seed))
        return weights

    monkeypatch.setattr(Sharing, "share", share)
    schedule = {"epochs": 3, "batch_size": 100, "validation": 0.0, "share_every": 4}
    trainer = trained(described(data, **schedule | options), data, tmp_path / "run")
    of_layers = len(trainer.network.lc_layers())
    np.testing.assert_allclose(lengths[::of_layers], expected, rtol=1e-12)
    # Layers of a sleep share patterns, sleeps do not.
    assert len(set(seeds[:of_layers])) == 1
    assert len(set(seeds)) == 2


@pytest.mark.parametrize(
    ("epochs", "milestones"),
    [(1, (1, 1)), (2, (1, 2)), (3, (2, 3)), (30, (15, 23)), (40, (20, 30))],
)
def test_a_short_training_begins_at_its_rate(epochs, milestones):
    training = Training(epochs=epochs, schedule="step", learning_rate=0.1)
    assert training.milestones == milestones
    assert training.rate(0) == training.rate(epochs / 2 - 1e-9) == 0.1
    # That of other schedules is a part of a description that results are found by.
    assert Training(epochs=epochs).milestones == (epochs // 2, 3 * epochs // 4)


def test_statistics_of_batch_norm_are_those_of_the_weights_that_are_tested(data, tmp_path):
    """A sleep that shrinks weights a lot does not change what a normalised network computes."""
    of = described(data, epochs=1, validation=0.0)
    trainer = trained(of, data, tmp_path / "run")
    expected = load(tmp_path / "run").logits(data.test.images)
    for layer in trainer.network.lc_layers().values():
        layer.weights = 0.3 * layer.weights
    trainer.progress.epoch = 0  # the same batches as then
    with parallel.threads(1):
        trainer._measure_statistics()
    trainer._write(tmp_path / "run")
    found = load(tmp_path / "run").logits(data.test.images)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("gated", Sharing("inhibition_gated", presentations=20, border="awake")),
        ("rule", Sharing("mean_subtracted", presentations=20, border="awake")),
        ("circuit", Sharing("circuit", presentations=20, border="awake")),
        ("instant", Sharing("instant", presentations=20)),
        ("none", None),
    ],
)
def test_runs_of_earlier_versions_mean_what_they_meant(former, now, data, tmp_path):
    """They left border positions awake, but averaged them, and had other names for two rules."""
    run = described(data, share_every=5)
    run.write(tmp_path, {})
    content = json.loads((tmp_path / "run.json").read_text())
    del content["sharing"]["border"]
    content["sharing"]["method"] = former
    content["format_version"] = 1  # which had no checksum
    (tmp_path / "run.json").write_text(json.dumps(content))
    found = Run.read(tmp_path)
    every = None if now is None else 5
    assert found.training == replace(run.training, share_every=every)
    assert found.plain() == replace(run, sharing=now, training=found.training).plain()
    if now is not None:
        assert found.plain()["sharing"]["border"] == now.border


@pytest.mark.slow
def test_the_seed_fixes_everything_and_matters(data, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        trained(described(data, seed=seed, epochs=1), data, tmp_path / name)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    a, c = stored(tmp_path / "a")[0], stored(tmp_path / "c")[0]
    assert not any(a[name] == c[name] for name in a)


def test_validation_images_are_set_aside(data):
    train, validation = split(data.train, 0.2, seed=3)
    assert np.bincount(validation.labels).tolist() == [15] * 4
    together = np.concatenate([train.images, validation.images])
    assert sorted(i.tobytes() for i in together) == sorted(i.tobytes() for i in data.train.images)
    assert split(data.train, 0.2, seed=4)[1].images.tobytes() != validation.images.tobytes()
    assert split(data.train, 0.0, seed=3) == (data.train, None)


def test_augmentation(rng):
    images = rng.integers(1, 256, (500, 6, 5, 3)).astype(np.uint8)
    assert augmented(images, rng, 0, False) is images
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])
    crops = augmented(images, rng, 2, False)
    places = set()
    for n, crop in enumerate(crops):
        matches = [
            (t, c) for t in range(5) for c in range(5)
            if np.array_equal(padded[n, t : t + 6, c : c + 5], crop)
        ]  # fmt: skip
        assert len(matches) == 1
        places.update(matches)
    assert len(places) == 25
    flipped = augmented(images, rng, 0, True)
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((flipped == images).all(axis=(1, 2, 3)) | mirrored).all()
    assert 190 < mirrored.sum() < 310  # 250 +- 5.4 standard deviations


def test_prepared_images_are_normalised(rng):
    images = rng.integers(0, 256, (40, 6, 5, 3)).astype(np.uint8)
    images[..., 2] = 7  # the same everywhere
    x = prepared(images, *channel_statistics(images), np.float64)
    assert x.shape == (6, 5, 3, 40)
    assert x.mean(axis=(0, 1, 3)) == pytest.approx(np.zeros(3), abs=1e-12)
    assert x.std(axis=(0, 1, 3)) == pytest.approx([1, 1, 0], abs=1e-12)


def test_hits_and_confusion(rng):
    found, labels = rng.standard_normal((50, 9)), rng.integers(9, size=50)
    top1, top5 = hits(found, labels)
    scores = [metrics.top_k_accuracy_score(labels, found, k=k, labels=range(9)) for k in (1, 5)]
    assert [top1.mean(), top5.mean()] == pytest.approx(scores)
    predicted = found.argmax(axis=1)
    expected = metrics.confusion_matrix(labels, predicted, labels=range(9))
    assert np.array_equal(confusion(predicted, labels, 9), expected)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--epochs 0", "--epochs 0: must be a whole number >= 1"),
        ("--batch-size 100000", "--batch-size 100000: there are only 12"),
        ("--repetitions 3", "--repetitions 3: must divide the images of a batch (128)"),
        ("--learning-rate -1", "--learning-rate -1: must be > 0"),
        ("--momentum 1", "--momentum 1: must be >= 0 and < 1"),
        ("--milestones 3", "--milestones has no effect without --schedule step"),
        ("--validation 1", "--validation 1: must be >= 0 and < 1"),
        ("--validation 0.001", "--validation 0.001: sets no image aside"),
        ("--crop-padding 8", "--crop-padding 8: must be smaller than the images (8 x 8)"),
        ("--network big", "--network big: must be one of resnet18, resnet20, small"),
        ("--connectivity full", "--connectivity full: must be one of conv, lc"),
        ("--sharing often", "--sharing often: must be one of"),
        ("--sharing circuit", "--sharing circuit needs --share-every"),
        ("--sharing gated", "--sharing gated: must be one of awake, circuit, inhibition_gated,"),
        ("--sharing mine=r-q", "--sharing r-q: must use r, r_inh, b, z, z_mean"),
        ("--border awake", "--border has no effect with --sharing none"),
        ("--moments shared", "--moments has no effect with --sharing none"),
        ("--sharing instant --share-every 1 --periods 3", "--periods 3: must be 1 or 2"),
        ("--sharing instant --share-every 1 --moments no", "--moments no: must be one of own, sha"),
        ("--sharing circuit --share-every 1 --border left", "--border left: must be one of asl"),
        ("--share-every 3", "--share-every 3: needs a way of sharing"),
        ("--sharing instant --share-every 3 --alpha 2", "--alpha has no effect with"),
        (
            "--sharing mean_subtracted --share-every 3 --alpha 2",
            "--alpha has no effect with --sharing mean_subtracted",
        ),
        (
            "--sharing mine=z-z_mean --share-every 3 --tau 2",
            "--tau has no effect with --sharing mine=z-z_mean",
        ),
        ("--alpha 2", "--alpha has no effect with --sharing none"),
        ("--sharing circuit --share-every 1 --connectivity conv", "needs --connectivity lc"),
        ("--sharing circuit --share-every 1 --sharing-rate 9", "--sharing-rate 9: is too high"),
        ("--sharing circuit --share-every 1 --alpha 80", "--alpha 80: Euler"),
        ("--sharing circuit --share-every 1 --tau -1", "--tau -1: must be > 0 ms"),
        ("--sharing circuit --share-every 1 --dt 0.7", "--dt 0.7: must be a whole part of"),
        ("--sharing circuit --share-every 1 --dt 2", "is unstable from alpha"),
        ("--sharing instant --share-every 1 --dt 0.5", "--dt has no effect with --sharing instant"),
        ("--circuit sigma=1", "--circuit has no effect with --sharing none"),
        (
            "--sharing mean_subtracted --share-every 1 --circuit sigma=1",
            "--circuit has no effect with --sharing mean_subtracted",
        ),
        (
            "--sharing circuit --share-every 1 --circuit sigma=1 --alpha 3",
            "--alpha has no effect with --circuit: write alpha=... there",
        ),
        *(
            (f"--sharing circuit --share-every 1 --circuit {words}", f"--circuit {message}")
            for words, message in {
                "b=2 sigma": "sigma: must be NAME=VALUE, such as sigma=0.1",
                "sigm=2": "sigm: must be one of alpha, b,",
                "sigma=x": "sigma=x: sigma must be a number",
                "interneurons=1.5": "interneurons=1.5: interneurons must be a whole number",
                "sigma=1 --circuit sigma=2": "sigma=2: must not have sigma twice",
                "b=2 sigma=-1": "sigma=-1: must be >= 0",
                "transfer=f(u)": "transfer=f(u): must be one of linear, relu, softplus, tanh, or",
                "b=2 --circuit alpha=70": "alpha=70: Euler with dt = 1 ms is unstable",
            }.items()
        ),
        ("--dataset mnist", "--dataset mnist: must be one of"),
        ("--jobs 0", "--jobs 0: must be a whole number >= 1"),
        ("--output {file}", "--output {file}:"),
        ("--output {finished}", "holds a run already; give --resume"),
        ("--output {finished} --resume --seed 3", "--seed: the run in"),
        ("--output {finished} --resume --circuit b=2", "--circuit: the run in"),
        ("--output {lost} --resume", "{lost}: holds no trained network (run.json is missing)"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tmp_path, monkeypatch, capsys, finished, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    lost = Path(shutil.copytree(finished, tmp_path.parent / f"{tmp_path.name}-lost"))
    (lost / "run.json").unlink()
    names = {"finished": finished, "file": tmp_path / "file", "lost": lost}
    assert classify.main(["train", *arguments.format(**names).split()]) == 2
    told = capsys.readouterr().err
    assert message.format(**names) in told
    assert len(told.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_run_goes_on_only_with_its_own_images(data, finished, tmp_path):
    other = Dataset("digits", classes(300, 9), data.test, data.class_names)
    with pytest.raises(cs.ParameterError, match="not those that the run began with"):
        Run.read(finished).trainer(other)


@pytest.mark.parametrize("images", [np.zeros((2, 8, 9, 3), np.uint8), np.zeros((9, 8, 3), np.uint8),
                                    np.zeros((2, 9)), "images"])  # fmt: skip
def test_images_that_do_not_fit_are_refused(finished, images):
    with pytest.raises(cs.ParameterError, match="X: must be|features"):
        load(finished).predict(images)


def test_the_estimator_is_one_of_scikit_learns_kind(finished, data):
    from sklearn.base import is_classifier

    classifier = load(finished, threads=2)
    assert is_classifier(classifier)
    predicted = classifier.predict(data.test.images)
    assert np.array_equal(predicted, load(finished).predict(data.test.images))
    assert set(predicted) <= set(classifier.classes_)
    display = metrics.ConfusionMatrixDisplay.from_estimator(
        classifier, data.test.images, data.test.labels
    )
    assert display.confusion_matrix.trace() == 60 * classifier.score(*vars(data.test).values())
    with pytest.raises(cs.ParameterError, match="one for each image"):
        classifier.score(data.test.images, [1, 2])
    assert classifier.predict(data.test.images[:0]).shape == (0,)


# --- image files ----------------------------------------------------------------------------------


def test_pictures(tmp_path, rng):
    pixels = rng.integers(0, 256, (9, 8, 3)).astype(np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    assert np.array_equal(pictures.read(path, (9, 8, 3)), pixels)
    assert pictures.read(path, (9, 8, 1)).shape == (9, 8, 1)
    with pytest.raises(cs.ParameterError, match=r"9 x 8 pixels, and the network takes 8 x 8"):
        pictures.read(path, (8, 8, 3))
    large = np.zeros((20, 16, 3), np.uint8)
    large[2:18] = pixels.repeat(2, axis=0)[1:17].repeat(2, axis=1)
    Image.fromarray(large).save(path)
    # The middle of 16 x 16, in which every pixel was there four times from the second row on.
    assert np.array_equal(pictures.read(path, (16, 16, 3), resize=True), large[2:18])


def test_files_that_are_no_pictures(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(cs.ParameterError, match="there is no such file"):
        pictures.read(path, (8, 8, 3))
    Image.new("RGB", (8, 8)).save(path)
    whole = path.read_bytes()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    for name, content in (("cut", whole[:-30]), ("empty", b""), ("text", b"%!PS-Adobe-3.0 EPSF")):
        (tmp_path / name).write_bytes(content)
    Image.new("F", (8, 8)).save(tmp_path / "real.tif")
    for name in ("cut", "empty", "text", "a.gif", "real.tif", "."):
        with pytest.raises(cs.ParameterError, match="cannot be read"):
            pictures.read(tmp_path / name, (8, 8, 3))


# --- files that somebody else may have written ----------------------------------------------------


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def refused(directory):
    with pytest.raises(cs.ParameterError) as raised:
        load(directory)
    assert raised.value.parameter == "run"
    return str(raised.value)


@pytest.mark.parametrize("name", ["run.json", "checkpoint.npz"])
def test_damaged_files_are_refused_or_harmless(copy, finished, data, name):
    expected = load(finished).logits(data.test.images)
    content = (copy / name).read_bytes()
    rng = random.Random(0)
    for _ in range(150):
        damaged = bytearray(content)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            for _ in range(rng.choice([1, 20])):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (copy / name).write_bytes(damaged)
        try:
            found = load(copy)
        except cs.ParameterError:
            continue
        assert np.array_equal(found.logits(data.test.images), expected)
        assert found.class_names == load(finished).class_names


def test_descriptions_that_lie_are_refused(copy):
    whole = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(whole | {"class_names": whole["class_names"][::-1]}))
    assert "its checksum is another" in refused(copy)
    whole["format_version"] = 1  # from before there was a checksum
    (copy / "run.json").write_text(json.dumps(whole))
    load(copy)

    def lies(**changes):
        (copy / "run.json").write_text(json.dumps(whole | changes))
        return refused(copy)

    architecture = whole["architecture"]
    assert "version 99" in lies(format_version=99)
    assert "no description" in lies(format="other")
    assert "checkpoint.npz" in lies(architecture=architecture | {"width": 4})
    # More weights than any memory holds: told without allocating them.
    lies(architecture=architecture | {"width": 100_000, "input_shape": [4000, 4000, 3]})
    lies(architecture=architecture | {"input_shape": [9, 8]})
    lies(architecture=architecture | {"command": "rm"})
    lies(class_names=["a"])
    lies(deviation=[0, 1, 1])
    lies(mean=[float("nan"), 1, 1])
    (copy / "run.json").write_text("[" * 10_000)
    refused(copy)
    (copy / "run.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no trained network"):
        load(copy)


def test_progress_that_could_not_be_is_refused(copy, data):
    with np.load(copy / "checkpoint.npz") as arrays:
        whole = dict(arrays)
    progress = json.loads(bytes(whole["progress"]))
    row = progress["history"][0]
    for changes in (
        {"epoch": -1},
        {"epoch": "1"},
        {"epoch": 2},
        {"batches": 1},
        {"batch": 10**9},
        {"finished": False},
        {"sums": [1.0]},
        {"sums": [1.0, "a", 2.0]},
        {"seconds": None},
        {"asleep": None},
        {"snr_w": {"layer1": None}},
        {"history": [row]},
        {"history": [row, row, {"train": [1, 2]}]},
        {"history": [row, row, 5]},
        {"history": 5},
        {"command": "rm"},
    ):
        text = json.dumps(progress | changes).encode()
        np.savez(copy / "checkpoint.npz", **whole | {"progress": np.frombuffer(text, np.uint8)})
        with pytest.raises(cs.ParameterError, match="checkpoint.npz cannot be read"):
            Run.read(copy).trainer(data).resume(copy)


def test_checkpoints_with_other_content_are_refused(copy):
    path = copy / "checkpoint.npz"
    with np.load(path) as arrays:
        whole = dict(arrays)
    name = "parameter.layer1.weights"

    def stored_with(save=np.savez, **changes):
        content = {n: a for n, a in (whole | changes).items() if a is not None}
        save(path, **content)
        return refused(copy)

    assert "lacks array" in stored_with(**{name: None})
    assert "unknown array" in stored_with(other=np.zeros(3))
    assert "must be float32" in stored_with(**{name: whole[name].astype(np.float16)})
    assert "must be float32" in stored_with(**{name: whole[name].reshape(-1)})
    assert "not stored as it was" in stored_with(np.savez_compressed)
    assert "not finite" in stored_with(**{name: np.full_like(whole[name], np.nan)})
    assert "must be float32" in stored_with(**{name: np.asfortranarray(whole[name])})
    stored_with(**{name: np.array([object()] * 3, dtype=object)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("progress.npy", b"")
    refused(copy)
    np.savez(path, **whole)  # from before there was a checksum
    load(copy)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"{name}.npy", archive.read(f"{name}.npy"))
    assert "two arrays of one name" in refused(copy)
    path.unlink()
    assert "no checkpoint yet" in refused(copy)


def test_a_dry_run_says_what_training_takes_and_writes_nothing(tmp_path, capsys):
    given = ["train", "--width", "4", "--batch-size", "32", "--output", str(tmp_path / "run")]
    assert main([*given, "--dry-run"]) == 0
    told = capsys.readouterr().out
    # 8 x 8 digits: 4 x 4 positions twice, then 2 x 2 twice; norms; and 10 classes.
    weights = 16 * 9 * (1 * 4 + 4 * 4) + 4 * 9 * (4 * 8 + 8 * 8)
    norms, linear = 2 * (4 + 4 + 8 + 8), 8 * 10 + 10
    assert f"parameters   {weights + norms + linear:,}\n" in told
    assert "epoch" in told
    assert "from a pilot" in told
    assert "a sleep" not in told
    assert main([*given, "--dry-run", "--sharing", "circuit", "--share-every", "9"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"a sleep      leaves 0\.\d+ of deviations .* for 9 inputs\n", told)
    assert re.search(r"a sleep      leaves 0\.\d+ of deviations .* for 72 inputs\n", told)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_what_does_not_fit_into_memory_is_refused_with_the_number(more, tmp_path, capsys):
    given = ["train", "--width", "100000", "--output", str(tmp_path / "run"), *more]
    assert main(given) == 2
    parameters = 16 * 9 * (10**5 + 10**10) + 4 * 9 * (2 * 10**10 + 4 * 10**10)
    parameters += 2 * 6 * 10**5 + 2 * 10**6 + 10
    told = capsys.readouterr().err
    assert f"--width 100000: makes a network of {parameters:,} parameters" in told
    assert "this machine has" in told
    assert not (tmp_path / "run").exists()
