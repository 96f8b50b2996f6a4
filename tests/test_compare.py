"""The comparison of classifiers: which trainings it takes, and what is reported of them."""

import csv
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import command, processes_with, wait_for

from circuitsim import classify_report
from circuitsim.classify import main
from circuitsim.studies import netcdf
from circuitsim.validation import ParameterError
from circuitsim.vision import datasets, training
from circuitsim.vision.comparison import Comparison, Job, Result, Variant, condensed, table
from circuitsim.vision.geometry import Geometry
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import Sharing, layer_snr_w

pytestmark = pytest.mark.slow
FIGURES = Path(__file__).parents[1] / "figures"


def result(accuracy=0.5, part="test", epochs=1, snr=(), **more):
    """A training that ended with some accuracy."""
    row = {
        "train": [1.0, 0.9, 1.0], "test": [1.0, 0.0, 1.0], part: [1.0, accuracy, 1.0],
        "snr_w": {f"layer{n}": value for n, value in enumerate(snr, 1)}, "snr_w_before_sleep": {},
        "seconds": 2.0, "seconds_asleep": 0.5,
    }  # fmt: skip
    return Result([row | more] * epochs)


def trained(comparison, accuracy):
    """Train in the order that a comparison asks for, one at a time; give the jobs' order."""
    results, order = {}, []
    while jobs := comparison.next(results):
        order.append(jobs[0])
        assert jobs[0].name not in results
        part = "validation" if jobs[0].trial else "test"
        found = accuracy(jobs[0])
        results[jobs[0].name] = found if isinstance(found, Result) else result(found, part)
    return results, order


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
    comparison = Comparison(variants=(Variant("lc"),), paddings=(0,), seeds=1)
    results, order = trained(comparison, lambda job: 1 / (1 + np.log(job.rate / peak) ** 2))
    assert comparison.rate(Variant("lc"), results) == pytest.approx(peak)
    assert order[-1] == Job(Variant("lc"), 0, 0, pytest.approx(peak), False)
    tried = sorted(job.rate for job in order if job.trial)
    assert np.allclose(np.diff(np.log2(tried)), 1)
    assert tried[0] == pytest.approx(min(1e-3, max(peak / 2, 1.25e-4)))
    assert tried[-1] == pytest.approx(max(4e-3, min(peak * 2, 3.2e-2)))


def test_what_diverges_is_not_chosen():
    """A rate at which the loss is no number is the worst; with no other there is no choice."""
    comparison = Comparison(variants=(Variant("lc"), Variant("conv")), paddings=(0,), seeds=2)

    def accuracy(job):
        wild = job.variant.name == "conv" or job.rate > 1e-3
        return Result([], diverged=True) if wild else result(0.5, "validation", epochs=10)

    results, order = trained(comparison, accuracy)
    assert comparison.rate(Variant("lc"), results) <= 1e-3
    assert comparison.rate(Variant("conv"), results) is None
    assert [job.variant.name for job in order if not job.trial] == ["lc", "lc"]
    data = condensed(comparison, results)
    assert [row.seeds for row in table(data)] == [2, 0]


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
    comparison = Comparison(variants=tuple(map(Variant, names)), paddings=(0,), rates=(1e-3,))
    accuracies = {"conv": (0.7, 0.8, 0.9), "lc": (0.5, 0.4, 0.0), "instant-1": (0.6, 0.7)}
    results = {
        f"{name}_padding0_seed{seed}": result(
            value, epochs=10, snr=() if name == "conv" else (4.0, 9.0),
            snr_w_before_sleep={"layer1": 1.0, "layer2": 4.0} if name == "instant-1" else {},
        )
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    }  # fmt: skip
    conv, lc, instant = table(condensed(comparison, results))
    assert (conv.test, conv.spread, conv.seeds) == pytest.approx((0.8, 0.1, 3))
    assert (instant.test, instant.seeds, instant.rate) == pytest.approx((0.65, 2, 1e-3))
    # Without the third seed: (0.65 - 0.45) / (0.75 - 0.45)
    assert instant.gap == pytest.approx(2 / 3)
    assert np.isnan([conv.gap, lc.gap, conv.snr, lc.snr_before]).all()
    assert (lc.snr, instant.snr_before) == pytest.approx((6.0, 2.0))
    assert (lc.seconds, lc.asleep) == pytest.approx((2.0, 0.25))


def test_no_gap_where_there_is_none():
    """Where conv is no better than lc, nothing can be closed."""
    comparison = Comparison(
        variants=tuple(map(Variant, ("conv", "lc", "mean_subtracted-2"))), paddings=(0,),
        rates=(1e-3,), epochs=1, seeds=1,
    )  # fmt: skip
    values = {"conv": 0.5, "lc": 0.6, "mean_subtracted-2": 0.7}
    results = {f"{name}_padding0_seed0": result(value) for name, value in values.items()}
    assert np.isnan([row.gap for row in table(condensed(comparison, results))]).all()


@pytest.fixture
def made():
    comparison = Comparison(seeds=2, epochs=3, sleep={"alpha": 20.0})
    results, _ = trained(
        comparison,
        lambda job: result(
            0.3 + 0.1 * job.seed + 0.01 * job.padding, "validation" if job.trial else "test",
            3, (1.0, np.inf, np.nan),
        ),
    )  # fmt: skip
    return condensed(comparison, results)


def test_report_is_drawn_again_from_its_data(made, tmp_path, capsys):
    """The data come back to the last bit, and make the same files."""
    classify_report.write(made, tmp_path / "a", "some command", with_data=True)
    data, line = classify_report.load(tmp_path / "a" / "classifiers.nc")
    assert line == "some command"
    assert Comparison.from_json(data.attrs["comparison"]).sleep == {
        "alpha": 20.0,
        "border": "asleep",
    }
    for name in made.variables:
        assert made[name].dims == data[name].dims
        np.testing.assert_array_equal(made[name], data[name])
    classify_report.write(data, tmp_path / "b", line, with_data=False)
    for kind in ("png", "pdf", "md", "csv"):
        first, second = ((tmp_path / d / f"classifiers.{kind}").read_bytes() for d in "ab")
        assert first == second
    assert "inhibition gated, every 10 batches" in (tmp_path / "a" / "classifiers.md").read_text()
    said = capsys.readouterr().out
    assert "inhibition_gated-10 " in said
    assert max(map(len, said.split("written:")[0].splitlines())) <= 80
    rows = list(csv.DictReader((tmp_path / "a" / "classifiers.csv").open()))
    assert len(rows) == 14
    assert float(rows[0]["test"]) == pytest.approx(0.35)


def test_weights_that_become_the_same_are_drawn(tmp_path):
    """SNRs without limit in some epochs, or in all."""
    comparison = Comparison(seeds=1, epochs=2, paddings=(0,))
    results, _ = trained(
        comparison, lambda job: result(0.3, "validation" if job.trial else "test", 2, (np.inf,))
    )
    rows = results["instant-1_padding0_seed0"].rows
    rows[0] = rows[0] | {"snr_w_before_sleep": {"layer1": 3.0}}
    classify_report.write(condensed(comparison, results), tmp_path, "some command", with_data=False)
    assert "| ∞ " in (tmp_path / "classifiers.md").read_text()


def test_damaged_data(made, tmp_path):
    """A file that is not as it was written is refused, before anything is allocated for it."""
    path = tmp_path / "classifiers.nc"
    classify_report.save(made, path, "some command")
    whole = path.read_bytes()

    def refused(change, seal=True):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file)
        if seal:
            netcdf.seal(path)
        with pytest.raises(ParameterError, match="file"):
            classify_report.load(path)

    def settings(file, **values):
        content = json.loads(file.attrs["comparison"]) | values
        file.attrs["comparison"] = json.dumps(content)

    refused(lambda file: file["test_top1"].__setitem__((0, 0, 0, 0), 1.0), seal=False)
    refused(lambda file: file.__delitem__("seconds"))
    refused(lambda file: file.attrs.__setitem__("format", "another"))
    refused(lambda file: settings(file, seeds=10**12))
    refused(lambda file: settings(file, variants=["conv", "foo"]))
    refused(lambda file: settings(file, alpha=3))
    path.write_bytes(whole[:2000])
    with pytest.raises(ParameterError, match="file"):
        classify_report.load(path)


class Watched:
    """A way of sharing that remembers the weights before each sleep."""

    border = "asleep"

    def __init__(self):
        self.before = []

    def share(self, weights, geometry, seed, length):
        self.before.append(layer_snr_w(weights, geometry))
        return Sharing("instant").share(weights, geometry, seed)


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


def test_stopped_and_gone_on_with(tmp_path, capsys):
    """No process is left behind; what was finished is not trained again; the rest is."""
    runs, output = tmp_path / "runs", tmp_path / "figures"
    arguments = [
        "compare", "--dataset", "digits", "--width", 4, "--epochs", 2, "--seeds", 1, "--jobs", 1,
        "--variants", "lc", "inhibition_gated-3", "--crop-padding", 0, "--rates", 0.01,
        "--runs", runs, "--output", output,
    ]  # fmt: skip
    environment = {**os.environ, "CIRCUITSIM_TEST_MARK": str(tmp_path / "mark")}
    process = subprocess.Popen(
        command(*arguments, module="classify"), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment,
    )  # fmt: skip
    assert re.match(r"\[1/2\] lc, padding 0, .* [0-9.]+ % test", process.stdout.readline())
    # The second one runs, and writes what it has to say.
    wait_for(lambda: len(list(runs.glob("*.log"))) == 2)
    assert len(processes_with(environment["CIRCUITSIM_TEST_MARK"])) == 2
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not processes_with(environment["CIRCUITSIM_TEST_MARK"])
    assert not output.exists()
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
    assert {path.suffix for path in output.iterdir()} == {".nc", ".pdf", ".png", ".md", ".csv"}

    # Now there is nothing to train, and the report is the same.
    table = said[said.index("variant ") :]
    assert again() == again("--report-only") == table
    assert checkpoints_of(runs) == after
    written = (output / "classifiers.png").read_bytes()
    assert main(["compare", "--redraw", str(output / "classifiers.nc"), "--output",
                 str(tmp_path / "again")]) == 0  # fmt: skip
    assert (tmp_path / "again" / "classifiers.png").read_bytes() == written


def test_divergence_is_reported_and_the_rest_goes_on(tmp_path, capsys):
    """One that diverged is named, with its log; one of another comparison is not gone on with."""
    options = [
        "compare", "--dataset", "digits", "--width", "4", "--epochs", "1", "--seeds", "2",
        "--jobs", "1", "--crop-padding", "0", "--variants", "lc",
        "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "figures"),
    ]  # fmt: skip
    assert main([*options, "--rates", "1e30"]) == 1
    told = capsys.readouterr()
    assert told.err.count("diverged, see") == 2
    assert "0/2" in told.out
    assert main([*options, "--rates", "0.01"]) == 2
    message = "learning rate 1e+30 and not 0.01; name another directory"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--variants", "lc", "lc"), "--variants lc lc: must be different values"),
        (("--variants", "none-3"), "--variants none-3: must be conv, lc, or"),
        (("--rates", 2, 1), "--rates 2 1: must be in ascending order"),
        (("--seeds", 0), "--seeds 0"),
        (("--alpha", 70), "--alpha 70: Euler"),
        (("--validation", 0), "--validation 0"),
        (("--validation", 0.001), "--validation 0.001: sets no image aside"),
        (("--batch-size", 1400), "--batch-size 1400: there are only 1299 images"),
        (("--crop-padding", 0, 8), "--crop-padding 8: must be smaller than the images"),
        (("--presentations-per-input", 0), "--presentations-per-input 0"),
        (("--report-only",), "no training of this comparison is finished"),
        (("--redraw", "none.nc"), "--redraw none.nc: there is no such file"),
        (("--redraw", "none.nc", "--seeds", "2"), "--seeds has no effect with --redraw"),
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
        variants=tuple(map(Variant, ("lc", "instant-1", "circuit-10", "inhibition_gated-10"))),
        sleep={"alpha": 50.0, "border": "awake"},
    )
    content = json.loads(now.to_json())
    del content["sleep"]["border"]
    content["variants"][-1] = "gated-10"
    found = Comparison.from_json(json.dumps(content))
    assert found == now
    assert found.sharing(Variant("circuit-10")).border == "awake"
    assert found.sharing(Variant("instant-1")).border == "asleep"


@pytest.mark.parametrize("path", sorted(FIGURES.glob("**/classifiers.nc")), ids=str)
def test_committed_comparisons_are_read(path):
    data, _ = classify_report.load(path)
    comparison = Comparison.from_json(data.attrs["comparison"])
    assert list(data["variant"].to_numpy()) == [v.name for v in comparison.variants]
    assert Comparison.from_json(comparison.to_json()) == comparison
