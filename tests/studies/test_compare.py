"""The comparison of classifiers: which trainings it takes, and what is reported of them."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from commands import Forked, command, processes_with, wait_for

from circuitsim.checks.validation import ParameterError
from circuitsim.checks.values import in_ms, ms
from circuitsim.classify import main
from circuitsim.files import netcdf
from circuitsim.running import results as files
from circuitsim.running import runner
from circuitsim.studies.comparison import Comparison, Job, Variant
from circuitsim.studies.comparison_report import rows
from circuitsim.vision import datasets, training
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import Sharing, layer_snr_w

pytestmark = pytest.mark.slow
FIGURES = Path(__file__).parents[2] / "figures"


def result(comparison, job, accuracy=0.5, snr=(), before=None, **more):
    """What a job gives that ends with some accuracy; None: it diverges at once."""
    if accuracy is None:
        return comparison._condensed(job, [], True)
    names = comparison._layers(job.variant)
    row = {
        "train": [1.0, 0.9, 1.0], "validation": [1.0, accuracy, 1.0], "test": [1.0, accuracy, 1.0],
        "snr_w": dict(zip(names, snr or [np.nan] * len(names), strict=True)),
        "snr_w_before_sleep": dict(zip(names, before, strict=True)) if before and names else {},
        "seconds": 2.0, "seconds_asleep": 0.5,
    }  # fmt: skip
    return comparison._condensed(job, [row | more] * comparison.training(job).epochs, False)


def trained(comparison, accuracy):
    """Train in the order that a comparison asks for, one at a time; give the jobs' order."""
    done, order = {}, []
    while jobs := [job for job in comparison.tasks(done) if job not in done]:
        order.append(jobs[0])
        found = accuracy(jobs[0])
        if not isinstance(found, dict):
            found = result(comparison, jobs[0], found)
        done[jobs[0]] = found
    return done, order


def condensed(comparison, done):
    """The data of a comparison, as its file holds them."""
    complete = comparison.complete(done)
    ((name, numbers, title),) = complete.collect(done.__getitem__)
    return complete, files.labelled(complete, complete.groups()[name], numbers, title)


def written(comparison, done, path):
    """Write a comparison's file and give the campaign that it holds."""
    complete = comparison.complete(done)
    files.write(complete, done.__getitem__, path, {"command_line": "some command"})
    return complete


def test_names_of_variants():
    """They say how layers are connected and how they share."""
    one = Variant("circuit-10")
    assert (one.connectivity, one.method, one.every) == ("lc", "circuit", 10)
    assert (Variant("conv").connectivity, Variant("lc").method) == ("conv", None)
    assert Variant("inhibition_gated-10").method == "inhibition_gated"
    for name in (
        "CONV", "none-10", "instant", "instant-", "instant-0", "instant-010", "gated-1",
        "mean_subtracted-1.5", "inhibition_gated--1", "instant-" + "9" * 5000,
    ):  # fmt: skip
        with pytest.raises(ParameterError, match="variants"):
            Variant(name)


@pytest.mark.parametrize("peak", [1e-3, 2e-3, 4e-3, 5e-4, 1.6e-2, 1.25e-4, 3.2e-2])
def test_rate_is_the_best_of_those_around_it(peak):
    """Rates beyond the ends of the list are tried as long as they are better."""
    comparison = Comparison(variants=("lc",), paddings=(0,), seeds=1)
    results, order = trained(comparison, lambda job: 1 / (1 + np.log(job.rate / peak) ** 2))
    assert comparison.rate("lc", results) == pytest.approx(peak)
    assert order[-1] == Job("lc", 0, 0, pytest.approx(peak), False)
    tried = sorted(job.rate for job in order if job.trial)
    assert np.allclose(np.diff(np.log2(tried)), 1)
    assert tried[0] == pytest.approx(min(1e-3, max(peak / 2, 1.25e-4)))
    assert tried[-1] == pytest.approx(max(4e-3, min(peak * 2, 3.2e-2)))


def test_what_diverges_is_not_chosen():
    """A rate at which the loss is no number is the worst; with no other there is no choice."""
    comparison = Comparison(variants=("lc", "conv"), paddings=(0,), seeds=2)

    def accuracy(job):
        return None if job.variant == "conv" or job.rate > 1e-3 else 0.5

    results, order = trained(comparison, accuracy)
    assert comparison.rate("lc", results) <= 1e-3
    assert comparison.rate("conv", results) is None
    assert [job.variant for job in order if not job.trial] == ["lc", "lc"]
    complete, data = condensed(comparison, results)
    assert [row.seeds for row in rows(data)] == [2, 0]
    assert complete.failed({"": data}) == [
        f"conv, padding 0, seed {seed}: every rate tried diverged" for seed in (0, 1)
    ]
    (note,) = complete.notes({"": data})
    assert "lc at 0.002" in note
    assert "conv at 0.001" in note


def test_first_layers_may_stay_convolutional():
    """Then it is another training of each locally connected network, and of no other."""
    without = Comparison(variants=("conv", "circuit-10"), network="resnet18")
    comparison = Comparison(variants=("conv", "circuit-10"), network="resnet18", first_conv=True)
    assert Comparison.from_json(comparison.to_json()) == comparison != without
    data = datasets.load("digits")
    for variant, connectivity in (("conv", "conv"), ("circuit-10", "lc")):
        job = Job(variant, 0, 0, 1e-3, False)
        assert (comparison.digest(job) == without.digest(job)) == (variant == "conv")
        architecture = comparison.describe_run(job, data).architecture
        assert (architecture.connectivity, architecture.first_conv) == (
            connectivity, variant != "conv",
        )  # fmt: skip
    assert without._layers("circuit-10") == ("layer1", *comparison._layers("circuit-10"))
    assert "first layer conv" in dict(comparison.outline())["network"]
    with pytest.raises(ParameterError, match="first_conv: has no effect"):
        Comparison(variants=("conv",), first_conv=True)


def test_seed_by_seed():
    """All variants of one seed come before the next; all choose their rates with one padding."""
    comparison = Comparison(seeds=2, paddings=(4, 0))
    _, order = trained(comparison, lambda job: job.rate if job.rate < 3e-3 else 0.0)
    finals = [job for job in order if not job.trial]
    assert [job.seed for job in finals] == [0] * 14 + [1] * 14
    assert len({job.name for job in order}) == len(order) == 28 + 3 * 7
    assert {job.padding for job in order if job.trial} == {4}
    assert {job.rate for job in finals} == {2e-3}
    trial, final = (comparison.training(next(j for j in order if j.trial == t)) for t in (1, 0))
    assert (trial.validation, trial.epochs) == (0.1, 2)
    assert (final.validation, final.epochs) == (0.0, 10)


def test_table():
    """Mean and spread over seeds; the gap by the seeds that all have; the mean SNR of layers."""
    names = ("conv", "lc", "instant-1")
    comparison = Comparison(variants=names, paddings=(0,), rates=(1e-3,))
    accuracies = {"conv": (0.7, 0.8, 0.9), "lc": (0.5, 0.4, 0.0), "instant-1": (0.6, 0.7)}
    done = {
        job: result(
            comparison, job, value, (4.0, 9.0, 4.0, 9.0) if name != "conv" else (),
            (1.0, 4.0, 1.0, 4.0) if name == "instant-1" else None,
        )
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
        for job in [Job(name, 0, seed, 1e-3, False)]
    }  # fmt: skip
    conv, lc, instant = rows(condensed(comparison, done)[1])
    assert (conv.test, conv.spread, conv.seeds) == pytest.approx((0.8, 0.1, 3))
    assert (instant.test, instant.seeds, instant.rate) == pytest.approx((0.65, 2, 1e-3))
    # Without the third seed: (0.65 - 0.45) / (0.75 - 0.45)
    assert instant.gap == pytest.approx(2 / 3)
    # By hand: (0.1, 0.3) - 2/3 (0.2, 0.4) = (-1, 1)/30, whose mean's error is 1/30, over 0.3.
    assert instant.gap_error == pytest.approx(1 / 9)
    assert np.isnan([conv.gap, lc.gap, conv.gap_error, conv.snr, lc.snr_before]).all()
    assert (lc.snr, instant.snr_before) == pytest.approx((6.0, 2.0))
    assert (lc.seconds, lc.asleep) == pytest.approx((2.0, 0.25))


def test_no_gap_where_there_is_none():
    """Where conv is no better than lc, nothing can be closed."""
    comparison = Comparison(
        variants=("conv", "lc", "mean_subtracted-2"), paddings=(0,), rates=(1e-3,), epochs=1,
        seeds=1,
    )  # fmt: skip
    values = {"conv": 0.5, "lc": 0.6, "mean_subtracted-2": 0.7}
    done, _ = trained(comparison, lambda job: values[job.variant])
    assert np.isnan([row.gap for row in rows(condensed(comparison, done)[1])]).all()


@pytest.fixture
def made():
    comparison = Comparison(seeds=2, epochs=3, sleep={"alpha": 20.0})

    def of(job):
        accuracy, snr = 0.3 + 0.1 * job.seed + 0.01 * job.padding, (1.0, np.inf, np.nan, 2.0)
        return result(comparison, job, accuracy, snr if job.variant != "conv" else ())

    return comparison, trained(comparison, of)[0]


@pytest.mark.drawn
def test_report_is_drawn_again_from_its_data(made, tmp_path, capsys):
    """The data come back to the last bit, and make the same files."""
    path = tmp_path / "a" / "classifiers.nc"
    path.parent.mkdir()
    complete = written(*made, path)
    found, groups, line = files.load(path, [Comparison])
    assert (found, line) == (complete, "some command")
    assert found.sleep == {"alpha": 20.0, "border": "asleep"}
    xr.testing.assert_identical(groups[""].drop_attrs(), condensed(*made)[1].drop_attrs())
    for directory in ("a", "b"):
        assert main(["compare", "--redraw", str(path), "--output", str(tmp_path / directory)]) == 0
    for kind in ("png", "pdf", "md", "csv"):
        first, second = ((tmp_path / d / f"classifiers.{kind}").read_bytes() for d in "ab")
        assert first == second
    assert "inhibition gated, every 10 batches" in (tmp_path / "a" / "classifiers.md").read_text()
    said = capsys.readouterr().out
    assert "inhibition_gated-10 " in said
    assert max(map(len, said.split("written:")[0].splitlines())) <= 80
    table = list(csv.DictReader((tmp_path / "a" / "classifiers.csv").open()))
    assert len(table) == 14
    assert float(table[0]["test"]) == pytest.approx(0.35)


def test_it_is_drawn_again_beside_its_data(tmp_path, monkeypatch, capsys):
    """And not where another comparison is."""
    monkeypatch.chdir(tmp_path)
    for name in ("resnet20", "one-kernel"):
        (tmp_path / name).mkdir()
        shutil.copy(FIGURES / name / "classifiers.nc", tmp_path / name)
        assert main(["compare", "--redraw", f"{name}/classifiers.nc"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one-kernel", "resnet20"]
    drawn = (tmp_path / "resnet20" / "classifiers.csv").read_text()
    assert drawn == (FIGURES / "resnet20" / "classifiers.csv").read_text()
    (tmp_path / "one-kernel" / "classifiers.nc").rename(tmp_path / "resnet20" / "other.nc")
    assert main(["compare", "--redraw", "resnet20/other.nc"]) == 2
    assert "--output resnet20: holds another comparison" in capsys.readouterr().err
    assert (tmp_path / "resnet20" / "classifiers.csv").read_text() == drawn
    assert main(["compare", "--redraw", "resnet20/other.nc", "--overwrite"]) == 0
    assert (tmp_path / "resnet20" / "classifiers.csv").read_text() != drawn


def test_weights_that_become_the_same_are_drawn(tmp_path):
    """SNRs without limit in some epochs, or in all."""
    comparison = Comparison(seeds=1, epochs=2, paddings=(0,), schedule="step")
    done, _ = trained(
        comparison,
        lambda job: result(comparison, job, 0.3, (np.inf,) * 4 if job.variant != "conv" else ()),
    )
    instant = next(job for job in done if job.variant == "instant-1" and not job.trial)
    done[instant]["snr_w_before_sleep"][0, 0] = 3.0
    written(comparison, done, tmp_path / "classifiers.nc")
    redraw = ["compare", "--redraw", tmp_path / "classifiers.nc", "--output", tmp_path]
    assert main(list(map(str, redraw))) == 0
    caption = (tmp_path / "classifiers.md").read_text()
    assert "| ∞ " in caption
    assert "0.25 times as high after half and three quarters of them" in caption


def test_damaged_data(made, tmp_path):
    """A file that is not as it was written is refused, before anything is allocated for it."""
    path = tmp_path / "classifiers.nc"
    written(*made, path)
    whole = path.read_bytes()

    def refused(change, seal=True):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file)
        if seal:
            netcdf.seal(path)
        with pytest.raises(ParameterError, match="file"):
            files.load(path, [Comparison])

    def settings(file, **values):
        content = json.loads(file.attrs["comparison"]) | values
        file.attrs["comparison"] = json.dumps(content)

    refused(lambda file: file["test_top1"].__setitem__((0, 0, 0, 0), 1.0), seal=False)
    refused(lambda file: file.__delitem__("seconds"))
    refused(lambda file: file.attrs.__setitem__("format", "another"))
    refused(lambda file: settings(file, seeds=10**12))
    refused(lambda file: settings(file, variants=["conv", "foo"]))
    refused(lambda file: settings(file, sleep=3))
    refused(lambda file: file.attrs.__setitem__("trials", "many"))
    refused(lambda file: file.attrs.__setitem__("trials", 10**9))
    refused(lambda file: file.attrs.__setitem__("layers", "layer1"))
    path.write_bytes(whole[:2000])
    with pytest.raises(ParameterError, match="file"):
        files.load(path, [Comparison])


def test_parts_take_what_they_need(tmp_path):
    """Each part is one training that counts, with those that choose its learning rate."""
    comparison = Comparison(variants=("conv", "lc"), paddings=(0, 4), seeds=2)
    assert comparison.parts == 8
    one = comparison.tasks({}, [5])
    assert {(job.variant, job.trial) for job in one} == {("lc", True)}
    done, _ = trained(comparison, lambda job: 1e-3 / job.rate)
    (final,) = [job for job in comparison.tasks(done, [5]) if not job.trial]
    assert (final.variant, final.padding, final.seed) == comparison.final()[5] == ("lc", 0, 1)
    with pytest.raises(ParameterError, match="must be from 0 to 7"):
        comparison.tasks({}, [8])


class Watched:
    """A way of sharing that remembers the weights before each sleep."""

    method, border, moments = "instant", "asleep", "own"

    def __init__(self):
        self.before = []

    def share(self, weights, geometry, seed, length, out):
        self.before.append(layer_snr_w(weights, geometry))
        return Sharing("instant").share(weights, geometry, seed, length, out)


def test_history_tells_of_sleep(tmp_path, rng):
    """SNR before the last sleep of an epoch, and the time that sleeps take of it."""
    images = rng.integers(0, 256, (40, 20, 20, 1), dtype=np.uint8)
    images = datasets.ImageSet(images, np.arange(40) % 2)
    data = datasets.Dataset("digits", images, images, ("a", "b"))
    options = training.Training(epochs=2, batch_size=8, validation=0.0, share_every=2)
    trainer = Run.new(data, options, Sharing("instant"), width=4).trainer(data)
    watched = trainer._sharing = Watched()
    trainer.run(tmp_path, lambda progress: None)
    rows = trainer.progress.history
    # Five batches in an epoch: sleeps after the second, fourth; and sixth, eighth and tenth.
    names = list(trainer.network.lc_layers())
    before = np.reshape(watched.before, (5, len(names)))
    for row, sleep in zip(rows, (1, 4), strict=True):
        np.testing.assert_array_equal([row["snr_w_before_sleep"][n] for n in names], before[sleep])
        assert 0 < row["seconds_asleep"] < row["seconds"]
    # The second epoch ends with a sleep, the first does not.
    assert rows[0]["snr_w"]["layer1"] < 1e12 < rows[1]["snr_w"]["layer1"]
    history = training.history(rows)
    assert history["snr_w_before_sleep"].shape == (2, len(names))
    assert history["seconds_asleep"].shape == (2,)


@pytest.mark.parametrize("method", ["mean_subtracted", "inhibition_gated"])
def test_presentations_for_each_input(method, rng):
    """So many for each of the K inputs are that number times K."""
    geometry = Geometry((7, 7), kernel=2)
    weights = rng.standard_normal((6, 6, 2, 2, 3, 2))
    per_input = Sharing(method, presentations_per_input=1.5).share(weights, geometry, 3)
    in_all = Sharing(method, presentations=18).share(weights, geometry, 3)
    np.testing.assert_array_equal(per_input, in_all)
    longer = Sharing(method, presentations=36).share(weights, geometry, 3, length=0.5)
    np.testing.assert_array_equal(longer, in_all)
    assert layer_snr_w(in_all, geometry) > layer_snr_w(weights, geometry)
    for wrong in (0, -1, float("nan"), "many"):
        with pytest.raises(ParameterError, match="presentations_per_input"):
            Sharing(method, presentations_per_input=wrong)


def checkpoints_of(runs):
    return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("*/checkpoint.npz")}


@pytest.mark.thorough
@pytest.mark.drawn
def test_stopped_and_gone_on_with(tmp_path, capsys):
    """No process is left behind; what was finished is not trained again; the rest is."""
    runs, output = tmp_path / "runs", tmp_path / "figures"
    arguments = [
        "compare", "--dataset", "digits", "--width", 4, "--epochs", 2, "--trials", 1, "--jobs", 1,
        "--variants", "lc", "inhibition_gated-3", "--crop-padding", 0, "--rates", 0.01,
        "--runs", runs, "--output", output,
    ]  # fmt: skip
    environment = {**os.environ, "CIRCUITSIM_TEST_MARK": str(tmp_path / "mark")}
    process = Forked(
        command(*arguments, module="classify"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment,
    )  # fmt: skip
    assert re.match(r"\[1/2\] lc, padding 0, .* [0-9.]+ % test", process.stdout.readline())
    wait_for(lambda: len(list(runs.glob("*/run.json"))) == 2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not processes_with(environment["CIRCUITSIM_TEST_MARK"])
    assert not (output / "classifiers.nc").exists()
    before = checkpoints_of(runs)

    def again(*more):
        assert main([*map(str, arguments), *more]) == 0
        return capsys.readouterr().out

    said = again()
    assert "[2/2] inhibition_gated-3" in said
    assert "lc, padding" not in said
    assert re.search(r"^inhibition_gated-3 +0 ", said, re.MULTILINE)
    after = checkpoints_of(runs)
    assert set(after) == {"lc_padding0_seed0", "inhibition_gated-3_padding0_seed0"}
    assert after["lc_padding0_seed0"] == before["lc_padding0_seed0"]
    assert {path.suffix for path in output.glob("*.*")} == {
        ".cells", ".nc", ".pdf", ".png", ".md", ".csv",
    }  # fmt: skip

    # Now there is nothing to train, and the report is the same.
    table = said[said.index("variant ") :]
    assert again() == again("--report-only") == table
    assert checkpoints_of(runs) == after
    written = (output / "classifiers.png").read_bytes()
    assert main(["compare", "--redraw", str(output / "classifiers.nc"), "--output",
                 str(tmp_path / "again")]) == 0  # fmt: skip
    assert (tmp_path / "again" / "classifiers.png").read_bytes() == written


def test_what_diverges_is_a_result(tmp_path, capsys):
    """The same table each time, nothing trained twice; a failure only where a network is lost."""
    options = [
        "compare", "--dataset", "digits", "--width", "2", "--epochs", "1", "--trials", "1",
        "--jobs", "1", "--crop-padding", "0", "--variants", "lc", "--rate-epochs", "1",
        "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "figures"),
    ]  # fmt: skip
    searched = [*options, "--rates", "1e-3", "1e14"]
    assert main(searched) == 0
    first = capsys.readouterr()
    assert "lc, padding 0, rate 1e+14: diverged" in first.out
    assert "note: diverged in the search for a learning rate: lc at 1e+14" in first.err
    table = first.out[first.out.index("variant ") :]
    assert " 1/1 " in table
    before = checkpoints_of(tmp_path / "runs")
    for again in (searched, [*searched, "--report-only"]):
        assert main(again) == 0
        assert capsys.readouterr().out == table
    assert checkpoints_of(tmp_path / "runs") == before

    alone = [*options, "--rates", "1e30", "--overwrite", "--runs", str(tmp_path / "alone")]
    for again in (alone, alone):
        assert main(again) == 1
        told = capsys.readouterr()
        assert "failed: lc, padding 0, seed 0: diverged at the rate 1e+30" in told.err
        assert " 0/1 " in told.out


def test_a_training_of_another_comparison_is_not_gone_on_with(tmp_path, capsys):
    options = [
        "compare", "--dataset", "digits", "--width", "2", "--epochs", "1", "--trials", "1",
        "--jobs", "1", "--crop-padding", "0", "--variants", "lc", "--rates", "0.01",
        "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "figures"),
    ]  # fmt: skip
    assert main(options) == 0
    assert main([*options, "--batch-size", "64", "--overwrite"]) == 2
    message = "lc_padding0_seed0 in it is of another run, with training.batch size 128 and not 64"
    assert message in capsys.readouterr().err


def test_killed_and_run_in_parts(tmp_path):
    """However it was trained, the numbers are the same to the last bit."""
    comparison = Comparison(
        variants=("lc", "instant-3"), paddings=(0,), seeds=1, dataset="digits", width=2, epochs=2,
        rates=(1e-3, 1e-2), rate_epochs=1,
    )  # fmt: skip
    whole, parts = tmp_path / "whole.nc", tmp_path / "parts.nc"
    assert runner.run(comparison, whole, jobs=2).failures == []
    made = {
        json.loads(run.read_text())["provenance"]["command_line"]
        for run in (tmp_path / "whole.cells").glob("**/run.json")
    }
    assert made == {shlex.join([sys.executable, *sys.argv])}  # not that of the workers' server
    for part in (1, 0):
        assert runner.run_parts(comparison, parts, [part]).failures == []
    # As if the last of them had been killed in its midst: its result is gone, its network is not.
    last = max((tmp_path / "parts.cells").glob("??/*.npz"), key=lambda p: p.stat().st_mtime)
    last.unlink()
    assert runner.collect(comparison, parts).missing
    assert runner.run_parts(comparison, parts, [0, 1]).computed == 1
    assert runner.collect(comparison, parts).missing == []
    data = [files.load(path, [Comparison])[1][""] for path in (whole, parts)]
    for name in data[0].variables:
        if data[0][name].attrs.get("units") != "s":
            np.testing.assert_array_equal(data[0][name], data[1][name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--variants", "lc", "lc"), "--variants lc: must not be given twice"),
        (("--variants", "none-3"), "--variants none-3: must be conv, lc, lc-x4"),
        (("--rates", 2, 1), "--rates 2 1: must be in ascending order"),
        (("--trials", 0), "--trials 0"),
        (("--alpha", 70), "--alpha 70: Euler"),
        (("--validation", 0), "--validation 0"),
        (("--validation", 0.001), "--validation 0.001: sets no image aside"),
        (("--batch-size", 1400), "--batch-size 1400: there are only 1299 images"),
        (("--crop-padding", 0, 8), "--crop-padding 8: must be smaller than the images"),
        (("--presentations-per-input", 0), "--presentations-per-input 0"),
        (
            ("--variants", "conv", "lc", "--alpha", 7),
            "--alpha has no effect with --variants conv lc",
        ),
        (("--variants", "mean_subtracted-1", "--dt", 0.5), "--dt has no effect with --variants"),
        (
            ("--variants", "awake-1", "--gamma", 0.1),
            "--gamma has no effect with --variants",
        ),
        (("--variants", "lc", "instant-1", "--sleep-length", "constant"), "--sleep-length has no"),
        (("--variants", "instant-1", "--border", "awake"), "--border has no effect with"),
        (("--report-only",), "--report-only: there is no comparison; run the command without it"),
        (("--redraw", "none.nc"), "--redraw none.nc: there is no such file"),
        (("--redraw", "none.nc", "--trials", "2"), "--trials has no effect with --redraw"),
        (("--output", "no/where"), "--output no/where"),
    ],
)
def test_mistakes(options, message, tmp_path, capsys, monkeypatch):
    """One message that names the option, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    images = () if "--redraw" in options else ("--dataset", "digits")
    code = main(["compare", *images, *map(str, options)])
    said = capsys.readouterr().err
    assert code == 2
    assert message in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_comparisons_of_earlier_versions_mean_what_they_meant():
    """They left border positions awake, but averaged them, and had other names for two rules."""
    now = Comparison(
        variants=("lc", "instant-1", "circuit-10", "inhibition_gated-10"),
        sleep={"alpha": 50.0, "border": "awake"},
    )
    content = json.loads(now.to_json())
    del content["sleep"]["border"]
    content["variants"][-1] = "gated-10"
    found = Comparison.from_json(json.dumps(content))
    assert found == now
    assert found.sharing("circuit-10").border == "awake"
    assert found.sharing("instant-1").border == "asleep"


def test_one_kernel_and_shared_moments_are_those_of_all_that_sleep():
    variants = ("conv", "lc", "instant-1", "awake-1", "circuit-10")
    plain = Comparison(variants=variants, sleep={"periods": 1, "moments": "own"})
    assert plain == Comparison(variants=variants)
    more = Comparison(variants=variants, sleep={"periods": 2, "moments": "shared"})
    found = Comparison.from_json(more.to_json())
    assert found == more
    for variant in ("instant-1", "circuit-10"):
        sharing = found.sharing(variant)
        assert (sharing.periods, sharing.moments) == (2, "shared")
        assert job_digest(more, variant) != job_digest(plain, variant)
    assert found.sharing("awake-1").periods == 1
    for variant in ("conv", "lc", "awake-1"):
        assert job_digest(more, variant) == job_digest(plain, variant)
    with pytest.raises(ParameterError, match="periods"):
        Comparison(variants=variants, sleep={"periods": 3})


def test_times_are_those_of_sleeps_by_a_rule():
    """But for the usual one: results from before there was a choice keep their names."""
    variants = ("lc", "instant-10", "circuit-10")
    more, plain = (
        Comparison(variants=variants, sleep={"tau": tau, "dt": dt})
        for tau, dt in ((100, 0.5), (30.0, 1))
    )
    assert plain == Comparison(variants=variants)
    assert more == Comparison.from_json(more.to_json()) != plain
    assert more == Comparison(variants=variants, sleep={"tau": 100 * ms, "dt": 0.5 * ms})
    assert [in_ms(getattr(more.sharing("circuit-10"), n)) for n in ("tau", "dt")] == [100, 0.5]
    assert in_ms(plain.sharing("circuit-10").tau) == in_ms(more.sharing("instant-10").tau) == 30
    changed = [v for v in variants if job_digest(more, v) != job_digest(plain, v)]
    assert changed == ["circuit-10"]
    with pytest.raises(ParameterError, match="unstable"):
        Comparison(variants=variants, sleep={"tau": 5.0, "alpha": 50.0})


def test_momentum_is_part_of_a_training():
    """But for the usual one: results from before there was a choice keep their names."""
    more, plain = (Comparison(variants=("lc",), momentum=mu) for mu in (0.99, 0.9))
    assert Comparison.from_json(more.to_json()) == more != plain
    assert more.training(Job("lc", 0, 0, 1e-3, False)).momentum == 0.99
    assert job_digest(more, "lc") != job_digest(plain, "lc") == "2fc44e1f8058b2b4fd4ed958c919f308"
    without = {n: v for n, v in json.loads(plain.to_json()).items() if n != "momentum"}
    assert Comparison.from_json(json.dumps(without)) == plain


def test_the_length_of_sleeps_is_that_of_trainings_with_sleeps_by_a_rule():
    variants = ("conv", "lc", "instant-10", "circuit-10", "awake-10")
    more, plain = (
        Comparison(variants=variants, sleep_length=length) for length in ("constant", "learning")
    )
    assert plain == Comparison(variants=variants) != more == Comparison.from_json(more.to_json())
    changed = [v for v in variants if job_digest(more, v) != job_digest(plain, v)]
    assert changed == ["circuit-10", "awake-10"]
    assert more.training(Job("circuit-10", 0, 0, 1e-3, False)).sleep_length == "constant"
    without = {n: v for n, v in json.loads(plain.to_json()).items() if n != "sleep_length"}
    assert Comparison.from_json(json.dumps(without)) == plain


def job_digest(comparison, variant):
    return comparison.digest(Job(variant, 0, 0, 1e-3, False))


@pytest.mark.parametrize("path", sorted(FIGURES.glob("**/classifiers.nc")), ids=str)
def test_committed_comparisons_are_read(path):
    comparison, groups, command_line = files.load(path, [Comparison])
    assert list(groups[""]["variant"].to_numpy()) == list(comparison.variants)
    assert Comparison.from_json(comparison.to_json()) == comparison
    assert path.with_suffix(".md").read_text() == comparison.caption(groups, command_line)


@pytest.mark.parametrize(
    ("variants", "told", "panels"),
    [
        ("conv", "solid", 3),
        ("lc", "dashed|D", 4),
        ("circuit-10", "sleeps in which|D|Asleep is|Border", 4),
        ("conv lc", "solid|dashed|D", 4),
        ("conv lc instant-1", "sleeps in which|solid|dashed|D|gap closed is|Asleep is|Border", 4),
    ],
)
def test_captions_tell_of_what_is_there(variants, told, panels):
    comparison, groups, _ = files.load(FIGURES / "resnet20" / "classifiers.nc", [Comparison])
    shown = {"": groups[""].sel(variant=variants.split())}
    comparison = replace(comparison, variants=tuple(variants.split()))
    found = re.findall(
        r"\b(solid|dashed|sleeps in which|D|gap closed is|Asleep is|Border)\b",
        comparison.caption(shown, "").split("Learning rates were")[0],
    )
    assert found == told.split("|")
    assert len(comparison.draw(shown).axes) == panels
