"""The sweep as its users run it: real processes, files, messages, exit codes."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import signal
import subprocess

import numpy as np
import pytest
import sketches
import xarray as xr
from commands import Forked, command, contents, interrupted_after, run, run_here, wait_for

import circuitsim as cs
from circuitsim import studies, sweep
from circuitsim.files.arrays import BadFile
from circuitsim.running import runner
from circuitsim.running.store import Store
from circuitsim.studies import tables, timing
from circuitsim.studies.sweep import LIMITS, Study, run_cells, study_in

pytestmark = pytest.mark.slow

SMALL = ["--k", "2", "3", "--gamma", "0.1", "0.01", "--trials", "2", "--presentations", "4",
         "--neurons", "6", "--codegen", "numpy"]  # fmt: skip
# Where it does not matter what runs circuits: the default engine takes seconds to start.
QUICK = [*SMALL, "--engine", "propagator"]


def in_process(*arguments):
    return sweep.main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def small(once):
    """A finished small sweep."""
    with sketches.drawn():
        place, done = once("sweep", lambda place: run(*SMALL, "--output", place / "out.nc"))
    assert done.returncode == 0, done.stderr
    return place, done


@pytest.fixture(scope="module")
def quick(once):
    """As `small`, by the propagator."""
    place, done = once("quick", lambda place: run(*QUICK, "--output", place / "out.nc"))
    assert done.returncode == 0, done.stderr
    return place


# -- what comes out -----------------------------------------------------------------------------


def test_the_result_is_as_promised(small):
    directory, done = small
    dataset = cs.load(directory / "out.nc")
    assert dict(dataset.sizes) == {
        "k": 2, "gamma": 2, "alpha": 1, "neurons": 1, "trial": 2, "presentation": 5,
    }  # fmt: skip
    for name in ("snr_w", "inverse_snr_w", "mean_weight_cosine"):
        dims = ("k", "gamma", "alpha", "neurons", "trial", "presentation")
        assert dataset[name].dims == dims
    for name in ("theory_inverse_snr_w", "fixed_point_inverse_snr_w"):
        assert dataset[name].dims == ("k", "gamma", "alpha", "neurons", "trial")
    for variable in xr.load_dataset(directory / "out.nc", engine="h5netcdf").variables.values():
        assert {"units", "long_name"} <= set(variable.attrs)
    assert {"seed", "engine", "command_line", "citation", "brian2_version"} <= set(dataset.attrs)
    weights = xr.load_dataset(directory / "out.nc", group="weights/k3", engine="h5netcdf").weights
    assert weights.dims == ("gamma", "alpha", "neurons", "trial", "neuron", "input")
    assert weights.shape == (2, 1, 1, 2, 6, 9)
    found = cs.measures.snr_w(weights.values)
    assert found == pytest.approx(dataset.snr_w.sel(k=3)[..., -1].values, rel=1e-9)
    assert cs.load_weights(directory / "out.nc", 3).equals(weights)
    assert "(lower = more alike)\nafter 4 presentations" in done.stdout
    assert str(directory / "out.nc") in done.stdout
    assert (directory / "out.png").stat().st_size > 5000
    assert done.stderr == ""  # quiet in a pipe
    assert max(map(len, done.stdout.splitlines()[:-2])) < 80


def test_the_numbers_are_those_of_simulate(small):
    """On the weights and inputs that the seed, k, neurons and trial fix, and nothing else."""
    directory, _ = small
    dataset = cs.load(directory / "out.nc")
    seed = lambda purpose: np.random.SeedSequence(0, spawn_key=(3, 6, 1, purpose))  # noqa: E731
    w_init = 1 + np.random.default_rng(seed(0)).standard_normal((6, 9))
    inputs = cs.inputs.GaussianInputs(4, 9, seed(1))
    for gamma in (0.1, 0.01):
        point = dataset.sel(k=3, gamma=gamma, alpha=10, neurons=6, trial=1)
        expected = cs.simulate(
            w_init, inputs, plasticity=cs.Plasticity(gamma=gamma), codegen="numpy"
        )
        for name in ("snr_w", "inverse_snr_w", "mean_weight_cosine"):
            assert np.array_equal(point[name], expected[name])
        for name, rule in (("theory", "mean_subtracted"), ("fixed_point", "circuit")):
            end = cs.theory.fixed_point(w_init, gamma, rule)
            assert float(point[f"{name}_inverse_snr_w"]) == pytest.approx(
                float(cs.measures.inverse_snr_w(end))
            )


def test_several_numbers_of_neurons_have_groups_of_their_own(tmp_path):
    output = tmp_path / "out.nc"
    options = ["--k", 2, "--gamma", 0.1, "--trials", 1, "--presentations", 1, "--codegen", "numpy"]
    assert in_process(*options, "--neurons", 4, 5, "--output", output) == 0
    for neurons in (4, 5):
        weights = cs.load_weights(output, 2, neurons)
        assert weights.shape == (1, 1, 1, 1, neurons, 4)
        group = xr.load_dataset(output, group=f"weights/k2/neurons{neurons}", engine="h5netcdf")
        assert group.weights.equals(weights.isel(neurons=0, drop=True))
    with pytest.raises(cs.ParameterError, match="neurons: must be given: it may be 4, 5"):
        cs.load_weights(output, 2)
    with xr.open_datatree(output, engine="h5netcdf") as tree:
        assert tree["weights/k2/neurons5/weights"].shape == (1, 1, 1, 5, 4)


def test_files_whose_sizes_of_pools_have_an_axis_are_read(tmp_path, monkeypatch):
    """As they were written first."""
    study = Study(k=(2,), gamma=(0.1,), trials=1, presentations=1, neurons=(4, 5),
                  engine="propagator", codegen="numpy")  # fmt: skip
    studies.run(study, tmp_path / "new.nc", runner.Here())
    (former,) = study.former_groups()
    real = Study.collect

    def collect(self, read):
        for name, numbers, title in real(self, read):
            if name.startswith("weights"):
                numbers = {"weights": numbers["weights"][:, :, np.newaxis]}
            yield name, numbers, title

    monkeypatch.setattr(Study, "groups", lambda self: former)
    monkeypatch.setattr(Study, "collect", collect)
    studies.run(study, tmp_path / "old.nc", runner.Here())
    monkeypatch.undo()
    new, old = tmp_path / "new.nc", tmp_path / "old.nc"
    assert cs.load(old).equals(cs.load(new))
    for neurons in (4, 5):
        assert cs.load_weights(old, 2, neurons).equals(cs.load_weights(new, 2, neurons))


def test_correlated_inputs_have_their_own_theory(tmp_path):
    study = Study(k=(2,), gamma=(0.1,), trials=1, presentations=2, correlation=0.5, neurons=(5,),
                  codegen="numpy")  # fmt: skip
    (cell,) = study.cells
    (result,) = run_cells(study, [cell])
    covariance = cs.inputs.equicorrelated(0.5, 4)
    w_init = study.initial_weights(cell)
    end = cs.theory.fixed_point(w_init, 0.1, "mean_subtracted", covariance=covariance)
    assert result["limits"][LIMITS.index("theory_snr_w")] == pytest.approx(
        float(cs.measures.snr_w(end))
    )
    plain = cs.theory.fixed_point(w_init, 0.1, "mean_subtracted")
    assert result["limits"][LIMITS.index("theory_snr_w")] != pytest.approx(
        float(cs.measures.snr_w(plain)), rel=1e-3
    )


def test_table(small):
    directory, done = small
    dataset = cs.load(directory / "out.nc")
    rows = list(tables.rows(dataset))
    assert [(r.k, r.gamma) for r in rows] == [(2, 0.1), (2, 0.01), (3, 0.1), (3, 0.01)]
    final = np.log10(dataset.inverse_snr_w.sel(k=3, gamma=0.01)[..., -1].values.ravel())
    assert rows[-1].final == pytest.approx(final.mean())
    assert rows[-1].spread == pytest.approx(final.std(ddof=1))
    assert f"{final.mean():.2f} +- {final.std(ddof=1):.2f}" in done.stdout
    # A made-up curve: lowest 1/100 at presentation 3, first below 1.1/100 at presentation 2.
    made_up = dataset.isel(k=[0], gamma=[0], trial=[0]).copy(deep=True)
    made_up["inverse_snr_w"][:] = 1 / np.array([1.0, 50.0, 91.0, 100.0, 80.0])
    (row,) = tables.rows(made_up)
    assert row.presentations_to_best == 2
    assert row.best == pytest.approx(-2.0)


def test_weights_are_exported(small, tmp_path):
    directory, _ = small
    done = run_here(directory / "out.nc", "--k", 3, "--gamma", 0.01, "--trial", 1, "--output",
               tmp_path / "w.npz", module="export")  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "w.npz", allow_pickle=False) as arrays:
        assert arrays["weights"].shape == (1, 6, 9)
        assert arrays["schema"] == "circuitsim weights"
        assert arrays["schema_version"] == 1
        assert arrays["gamma"].tolist() == [0.01]
        assert arrays["trial"].tolist() == [1]
        assert (arrays["k"], arrays["neurons"], arrays["rule"]) == (3, 6, "circuit")
        expected = cs.load_weights(directory / "out.nc", 3).sel(gamma=0.01, trial=1).squeeze()
        assert np.array_equal(arrays["weights"][0], expected)
    path = cs.export_weights(directory / "out.nc", k=2)
    assert path == directory / "out-k2.npz"
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["weights"].shape == (4, 6, 4)
        assert arrays["gamma"].tolist() == [0.1, 0.1, 0.01, 0.01]
    for wrong, message in (
        (["--k", 4], "--k 4: must be one of 2, 3"),
        ([], "--k: must be given: it may be 2, 3"),
        (["--k", 3, "--gamma", 0.5], "--gamma 0.5: must be one of 0.1, 0.01"),
        (["--k", 3, "--trial", 7], "--trial 7: must be one of 0, 1"),
        (["--k", 3, "--output", "w.txt"], "--output w.txt: must end in .npz"),
        (["--k", 3, "--output", "/no/such/w.npz"], "must be a file in a directory that exists"),
    ):
        done = run_here(directory / "out.nc", *wrong, module="export")
        assert done.returncode == 2
        assert message in done.stderr
    done = run_here(directory / "none.nc", "--k", 3, module="export")
    assert done.returncode == 2
    assert "there is no such file" in done.stderr


# -- what was done is not done again --------------------------------------------------------------


def test_a_larger_grid_reuses_what_is_there(quick, tmp_path):
    directory = quick
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    output = tmp_path / "out.nc"
    output.unlink()
    output.with_suffix(".png").unlink()
    again = run_here(*QUICK, "--output", output)
    assert "8 of 8 circuits were there already" in again.stderr
    for mine, first in zip(contents(output), contents(directory / "out.nc"), strict=True):
        xr.testing.assert_identical(mine, first)
    larger = [*QUICK, "--output", output]
    larger[larger.index("--trials") + 1] = "3"
    larger.insert(larger.index("0.01"), "1.0")
    more = run_here(*larger)
    assert "8 of 18 circuits were there already" in more.stderr
    dataset = cs.load(output)
    same = dataset.sel(gamma=[0.1, 0.01], trial=[0, 1])
    xr.testing.assert_identical(same.drop_attrs(), contents(directory / "out.nc")[0])


def test_a_faster_way_is_shown_only_to_who_has_waited(tmp_path, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(timing, "faster_way", lambda _, cells, *rest: shown.append(cells) or [])
    for _ in range(2):
        assert in_process(*QUICK, "--jobs", 1, "--output", tmp_path / "out.nc") == 0
    assert [len(cells) for cells in shown] == [8]


def test_another_sweep_is_not_overwritten(quick, tmp_path, capsys):
    output = tmp_path / "out.nc"
    shutil.copy(quick / "out.nc", output)
    before = output.read_bytes()
    for change in (["--seed", 1], ["--presentations", 5], ["--gamma", 0.1], ["--trials", 1]):
        assert in_process(*QUICK, "--output", output, *change) == 2
        assert "holds another sweep" in capsys.readouterr().err
        assert output.read_bytes() == before
    done = run_here(*QUICK, "--output", output, "--seed", 1, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert cs.load(output).attrs["seed"] == 1
    stranger = tmp_path / "notes.nc"
    stranger.write_text("do not lose me")
    for overwrite in ([], ["--overwrite"]):
        assert in_process(*QUICK, "--output", stranger, *overwrite) == 2
        assert "exists and is no sweep" in capsys.readouterr().err
    assert stranger.read_text() == "do not lose me"
    assert not (tmp_path / "notes.cells").exists()


def test_bad_cell_files_are_set_aside_and_computed_again(quick, tmp_path):
    directory = quick
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    output = tmp_path / "out.nc"
    output.unlink()
    output.with_suffix(".png").unlink()
    files = sorted((tmp_path / "out.cells").glob("*/*.npz"))
    assert len(files) == 8
    files[0].write_bytes(files[0].read_bytes()[:100])
    flipped = bytearray(files[1].read_bytes())
    flipped[flipped.index(b"weights.npy") + 300] ^= 1  # one of the numbers
    files[1].write_bytes(flipped)
    files[2].write_bytes(files[3].read_bytes())
    files[4].unlink()
    files[4].symlink_to("/etc/passwd")
    done = run_here(*QUICK, "--output", output)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is bad") == 4
    assert len(list((tmp_path / "out.cells" / "bad").iterdir())) == 4
    for mine, first in zip(contents(output), contents(directory / "out.nc"), strict=True):
        xr.testing.assert_identical(mine, first)


def test_cell_files_that_lie_are_not_believed(tmp_path):
    study = Study(k=(2,), gamma=(0.1,), trials=1, presentations=2, neurons=(3,), codegen="numpy")
    (cell,) = study.cells
    (result,) = run_cells(study, [cell])
    store = Store(tmp_path)
    path = store.path(study.digest(cell))

    def rewritten(**changes):
        store.write(study, cell, result)
        with np.load(path) as arrays:
            content = dict(arrays) | changes
        np.savez(path, **{name: a for name, a in content.items() if a is not None})

    rewritten()
    assert np.array_equal(store.read(study, cell)["weights"], result["weights"])
    for changes in (
        {"weights": np.full((3, 4), np.nan)},
        {"weights": np.zeros((4, 3))},
        {"weights": np.zeros((3, 4), np.float32)},
        {"weights": np.zeros((3, 4), complex)},
        {"weights": np.array([[{}] * 4] * 3, dtype=object)},
        {"weights": None},
        {"extra": np.zeros(3)},
        {"snr_w": np.zeros(10_000)},
        {"snr_w": np.full(3, np.nan)},
        {"digest": np.zeros(32, np.uint8)},
    ):
        rewritten(**changes)
        with pytest.raises(BadFile):
            store.read(study, cell)


# -- how it ends ----------------------------------------------------------------------------------

# Three batches for two workers: when the first is kept, the third has only begun.
LONG = ["--k", "3", "--gamma", "0.1", "--trials", "30", "--presentations", "20", "--codegen",
        "numpy", "--jobs", "2"]  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.thorough),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.thorough),
    ],
)
def test_signals_end_it_before_the_rest_and_lose_nothing(tmp_path, number, code):
    output = tmp_path / "out.nc"
    process = Forked(
        command(*LONG, "--output", output),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: list(tmp_path.glob("out.cells/*/*.npz")))
    # A terminal sends them to all of its processes, a scheduler to the first.
    process.send_signal(number) if number == signal.SIGTERM else os.killpg(process.pid, number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == code
    assert "Traceback" not in said
    kept = len(list(tmp_path.glob("out.cells/*/*.npz")))
    assert kept < 30
    assert f"{kept} finished circuits are kept in" in said
    assert not output.exists()
    assert not list(tmp_path.glob("**/*.part"))
    done = run(*LONG, "--output", output)
    assert done.returncode == 0, done.stderr
    assert f"{kept} of 30 circuits were there already" in done.stderr


@pytest.mark.parametrize(
    "imported",
    ["argparse", "circuitsim.commands.main", "numpy", "scipy", "circuitsim.running", "h5netcdf"],
)
def test_ctrl_c_while_it_starts(tmp_path, imported):
    code, said = interrupted_after(imported, *LONG, "--output", tmp_path / "out.nc")
    assert code == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("**/*.nc"))


def test_progress_on_a_terminal(tmp_path):
    leader, follower = pty.openpty()
    process = Forked(
        command(*QUICK, "--output", tmp_path / "out.nc"), stdout=subprocess.PIPE, stderr=follower
    )
    os.close(follower)
    said = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    process.communicate()
    assert process.returncode == 0
    assert b"circuits" in said
    assert b"left" in said


def test_a_dry_run_writes_nothing(tmp_path):
    done = run_here(*QUICK, "--output", tmp_path / "out.nc", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "circuits    8, of which 0 are finished" in done.stdout
    assert "estimate" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_the_machines_failure(tmp_path, monkeypatch, capsys):
    import errno

    from circuitsim import files

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    code = in_process(*QUICK, "--output", tmp_path / "out.nc")
    assert code == 1
    assert "the disk is full" in capsys.readouterr().err
    assert not (tmp_path / "out.nc").exists()
    assert not list(tmp_path.glob("**/*.part"))


def test_a_disk_that_is_really_full(tmp_path):
    """A small one, where this user may make it; else the system's limit on the size of files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    sweeping = shlex.join(command(*QUICK, "--neurons", 60, "--output", disk / "out.nc"))
    left = f"code=$?; find {disk} -name out.nc -o -name '*.part'; exit $code"
    for namespace, small in (
        (
            ["env", "unshare", "--map-root-user", "--mount"],
            f"mount -t tmpfs -o size=64k tmpfs {disk}",
        ),
        ([], "ulimit -f 8"),
    ):
        if subprocess.run([*namespace, "sh", "-c", small], capture_output=True).returncode == 0:
            break
    done = subprocess.run(
        [*namespace, "sh", "-c", f"{small} && {sweeping}; {left}"], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert ("the disk is full" if namespace else "File too large") in done.stderr
    assert "Traceback" not in done.stderr
    assert "/out.nc" not in done.stdout
    assert ".part" not in done.stdout


# -- wrong input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--k 0", "--k 0: must be a whole number >= 1"),
        ("--k 3 3", "--k 3: must not be given twice"),
        ("--k 3.5", "--k 3.5: must be a whole number"),
        ("--k", "argument --k: expected at least one argument"),
        ("--k 1000000000", "--k 1000000000: needs about"),
        ("--gamma -1", "--gamma -1: must be >= 0"),
        ("--gamma nan", "--gamma nan: must be a finite number"),
        ("--gamma inf", "--gamma inf: must be a finite number"),
        ("--gamma 0.1 0.10", "--gamma 0.1: must not be given twice"),
        ("--gamma 1e300", "--gamma 1e+300: must be < "),
        ("--alpha 70", "--alpha 70: Euler with dt = 1 ms is unstable from alpha = 59"),
        ("--alpha -1", "--alpha -1: must be >= 0"),
        ("--alpha 1 2 --rule mean_subtracted", "--alpha 1 2: the rule mean_subtracted has no"),
        ("--neurons 1", "--neurons 1: must be a whole number >= 2"),
        ("--neurons 1000000000000", "--neurons 1000000000000: needs about"),
        ("--trials 0", "--trials 0: must be a whole number >= 1"),
        ("--trials 1000000000000", "--trials 1000000000000: needs about"),
        ("--presentations 0", "--presentations 0: must be a whole number >= 1"),
        ("--presentations 100000000000", "--presentations 100000000000: needs about"),
        ("--presentation 0", "--presentation 0: must be > 0 ms"),
        ("--presentation 1e300", "--dt 1: must be at least"),
        ("--rule hebb", "--rule hebb: must be one of circuit, "),
        ("--engine neuron", "--engine neuron: must be one of auto, brian2, "),
        ("--codegen cuda", "--codegen cuda: must be one of auto, "),
        ("--seed -1", "--seed -1: must be a whole number >= 0"),
        ("--jobs 0", "--jobs 0: must be a whole number >= 1"),
        ("--correlation 2", "--correlation 2: must be from -0.125 to 1 for 9 inputs"),
        ("--correlation -0.5", "--correlation -0.5: must be from -0.125 to 1 for 9 inputs"),
        ("--tau 0", "--tau 0: must be > 0 ms"),
        ("--dt 0.7", "--presentation 150: must be a whole number of steps of dt = 0.7 ms"),
        ("--dt nan", "--dt nan: must be a finite number"),
        ("--momentum 1", "--momentum 1: must be >= 0 and < 1"),
        ("--learning-rate -1", "--learning-rate -1: must be >= 0"),
        ("--output out.txt", "--output out.txt: must end in .nc"),
        ("--output /no/such/out.nc", "--output /no/such/out.nc: the directory /no/such does not"),
        ("--seeds 3", "unrecognized arguments: --seeds 3"),
    ],
)
def test_mistakes_are_met_with_one_message(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = in_process(*options.split())
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    assert code == 2
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_two_sweeps_with_one_output(tmp_path):
    output = tmp_path / "out.nc"
    first = Forked(command(*LONG, "--output", output), stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "out.cells" / "lock").exists())
    done = run(*LONG, "--output", output)
    assert done.returncode == 2
    assert "out.cells/lock" in done.stderr
    assert "wait for it or end it" in done.stderr
    first.terminate()
    assert first.wait(60) == 143


def test_help_explains_every_option():
    done = run("--help")
    assert done.returncode == 0
    for option in ("--k", "--gamma", "--alpha", "--neurons", "--rule", "--trials", "--jobs",
                   "--presentations", "--engine", "--seed", "--output"):  # fmt: skip
        assert option in done.stdout
    assert "(default: 2000)" in done.stdout
    assert "in ms" in done.stdout


def test_divergence_is_reported_and_the_rest_is_kept(tmp_path):
    """A learning rate that only some of the circuits survive."""
    options = ["--k", "2", "8", "--gamma", "0.1", "--trials", "1", "--presentations", "300",
               "--rule", "mean_subtracted", "--codegen", "numpy", "--neurons", "6"]  # fmt: skip
    done = run_here(*options, "--learning-rate", "0.09", "--output", tmp_path / "out.nc")
    assert done.returncode == 1
    assert "1 of 2 circuits failed" in done.stderr
    assert "diverged" in done.stderr
    assert "Traceback" not in done.stderr
    (report,) = (tmp_path / "out.cells" / "failed").iterdir()
    assert "FloatingPointError" in report.read_text()
    assert len(list(tmp_path.glob("out.cells/*/*.npz"))) == 1


def test_any_executor_runs_a_study(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    study = Study(k=(2,), gamma=(0.1,), trials=3, presentations=2, neurons=(3,), codegen="numpy")
    with ThreadPoolExecutor(1) as executor:
        summary = studies.run(study, tmp_path / "out.nc", executor)
    assert (summary.total, summary.computed, summary.failures) == (3, 3, [])
    assert study_in(tmp_path / "out.nc") == study
