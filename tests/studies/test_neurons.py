"""The command that tells how well networks predict neurons, of neurons that are known."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from circuitsim.checks.validation import ParameterError
from circuitsim.classify import main
from circuitsim.studies.predictivity import Predictivity, Task
from circuitsim.vision import datasets, predictivity
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.training import Training

STIMULI, SHAPE = 150, (9, 8, 3)


@pytest.fixture(scope="module")
def home(once):
    """Stimuli, and networks: two seeds of one kind, and one that sleeps."""

    def make(place):
        rng = np.random.default_rng(0)
        data = datasets.from_arrays(rng.integers(0, 256, (60, *SHAPE), dtype=np.uint8),
                                    np.arange(60) % 3)  # fmt: skip
        for name, seed, sharing in (("lc-0", 0, None), ("lc-1", 1, None), ("asleep", 0, "instant")):
            every = None if sharing is None else 2
            training = Training(epochs=1, batch_size=16, seed=seed, share_every=every)
            how = None if sharing is None else Sharing(sharing)
            Run.new(data, training, how, width=3).carry_out(place / name, data, lambda *_: None)
        (place / "stimuli").mkdir()
        for n, image in enumerate(rng.integers(0, 256, (STIMULI, *SHAPE), dtype=np.uint8)):
            Image.fromarray(image).save(place / "stimuli" / f"{n:03}.png")

    return once("neurons", make)[0]


def features(home, layer, run="lc-0"):
    made = Run.read(home / run)
    _, images = predictivity.stimuli(home / "stimuli", made.architecture.input_shape)
    network = made.network(home / run)
    return predictivity.network_features(network, images, *made.statistics)[layer]


def saved(path, values):
    np.save(path, values)
    return path


def command(home, output, responses, *more, runs=("lc-0",)):
    runs = [str(home / run) for run in runs]
    return main(["predictivity", "--run", *runs, "--stimuli", str(home / "stimuli"),
                 "--responses", str(responses), "--output", str(output), "--jobs", "1",
                 "--resamples", "300", "--components", "8", *map(str, more)])  # fmt: skip


@pytest.mark.slow
@pytest.mark.thorough
def test_neurons_linear_in_a_layer_are_as_predictable_as_their_noise_allows(home, tmp_path, capsys):
    """As in tests/vision: correlations are s2/sqrt((s2 + v p/n)(s2 + v)), ceilings remove v."""
    rng = np.random.default_rng(1)
    x = features(home, "pool").astype(float)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    number, repeats, noise = 40, 6, 1.5
    signal = (x @ rng.standard_normal((x.shape[1], number))).T
    signal /= signal.std(axis=1, keepdims=True)
    single = signal[..., None] + noise * rng.standard_normal((*signal.shape, repeats))
    responses = saved(tmp_path / "r.npy", single)
    assert command(home, tmp_path / "out", responses) == 0
    assert "lc-0" in capsys.readouterr().out
    path = tmp_path / "out" / "predictivity.nc"
    of_layers = xr.load_dataset(path, group="lc-0", engine="h5netcdf")
    names = of_layers["layer"].attrs["flag_meanings"].split()
    v, fitted = noise**2 / repeats, STIMULI * 4 / 5
    expected = 1 / np.sqrt((1 + v * x.shape[1] / fitted) * (1 + v))
    found = of_layers["correlation"][0, names.index("pool")].mean("fold")
    np.testing.assert_allclose(found.mean(), expected, atol=0.02)
    root = xr.load_dataset(path, engine="h5netcdf")
    sources = root["source"].attrs["flag_meanings"].split()
    assert sources == ["lc-0", "untrained_lc-0", "pixels", "edges"]
    np.testing.assert_allclose(
        root["median_predictivity"][0], 1 / np.sqrt(1 + v * x.shape[1] / fitted), atol=0.03
    )
    low, high = root["difference_interval"][0, sources.index("edges")]
    assert low > 0, (low, high)
    assert names[int(of_layers["best_layer"][0, 0])] in ("layer4", "pool", "linear")
    assert root.attrs["format"] == "circuitsim predictivity"
    assert "circuitsim_version" in root.attrs
    assert all("units" in root[name].attrs for name in root.variables)
    for kind in (".pdf", ".png", ".md"):
        assert path.with_suffix(kind).stat().st_size > 0
    # And again, from the file: the same numbers.
    again = ["--stimuli", str(home / "stimuli"), "--responses", str(responses)]
    assert main(["predictivity", "--reproduce", str(path), "--run", str(home / "lc-0"),
                 *again]) == 0  # fmt: skip


@pytest.mark.slow
def test_noise_is_not_predicted(home, tmp_path):
    noise = np.random.default_rng(2).standard_normal((60, STIMULI, 4))
    made = Predictivity.of([home / "lc-0", home / "asleep"], home / "stimuli",
                           saved(tmp_path / "n.npy", noise), components=8)  # fmt: skip
    done = {task: made.run_one(task, None) for task in made.every_task}
    root = next(numbers for name, numbers, _ in made.collect(done.get) if name == "")
    low, high = root["median_correlation_interval"].T
    assert ((low <= 0) & (high >= 0)).all(), root["median_correlation_interval"]
    assert abs(np.median(root["reliability"])) < 0.1


@pytest.mark.slow
def test_trainings_of_several_seeds_are_one_network(home, tmp_path):
    runs = [home / name for name in ("lc-0", "asleep", "lc-1")]
    responses = np.random.default_rng(0).standard_normal((3, STIMULI))
    made = Predictivity.of(runs, home / "stimuli", saved(tmp_path / "r.npy", responses))
    assert made.networks == {"lc": [0, 2], "asleep": [1]}
    # Untrained, networks that differ in their sleep alone are the same.
    untrained = [task for task in made.every_task if task.what == "untrained"]
    assert untrained == [Task("untrained", 0), Task("untrained", 2)]
    found = {task: {"correlation": np.full(made.layout(task)["correlation"][0], 0.1 * n)}
             for n, task in enumerate(made.every_task) if task.what != "neurons"}  # fmt: skip
    found[Task("neurons")] = made.run_one(Task("neurons"), None)
    root = next(numbers for name, numbers, _ in made.collect(found.get) if name == "")
    np.testing.assert_allclose(root["median_correlation"][:2], [0.1, 0.1])  # of 0 and 0.2; of 0.1
    np.testing.assert_allclose(root["deviation"][0], np.std([0, 0.2], ddof=1))
    assert root["runs"].tolist() == [2, 1, 2, 1, 1, 1]
    # A task's digest does not depend on what else is asked for.
    alone = Predictivity.of(runs[2:], home / "stimuli", tmp_path / "r.npy")
    assert alone.digest(Task("trained", 0)) == made.digest(Task("trained", 2))
    assert Predictivity.from_json(made.to_json()) == made


def test_the_order_of_stimuli(home, tmp_path, capsys):
    names = [f"{n:03}.png" for n in range(STIMULI)]
    shuffled = np.random.default_rng(0).permutation(names).tolist()
    order = tmp_path / "order.txt"
    order.write_text("\n".join(shuffled))
    found, _ = predictivity.stimuli(home / "stimuli", SHAPE, shuffled)
    assert found == shuffled
    packed = tmp_path / "s.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.write(home / "stimuli" / name, f"folder/{name}")
    same = [predictivity.survey(place, shuffled)[1:] for place in (home / "stimuli", packed)]
    assert same[0] == same[1] != predictivity.survey(packed)[1:]
    for wrong, text in (
        (shuffled[:-1], "is missing"),
        ([*shuffled, shuffled[0]], "one is there twice"),
        (["x.png"], "there is none"),
    ):
        with pytest.raises(ParameterError, match=text):
            predictivity.survey(packed, wrong)
    # Names that count are told where text sorts them otherwise.
    numbered = tmp_path / "numbered"
    numbered.mkdir()
    for n in range(STIMULI):
        shutil.copy(home / "stimuli" / names[n], numbered / f"image{n + 1}.png")
    responses = saved(tmp_path / "r.npy", np.zeros((2, STIMULI)) + np.arange(STIMULI))
    given = ["predictivity", "--run", str(home / "lc-0"), "--responses", str(responses),
             "--output", str(tmp_path / "out"), "--dry-run", "--components", "2"]  # fmt: skip
    assert main([*given, "--stimuli", str(numbered)]) == 0
    assert "image10.png comes before image2.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.zeros((3, STIMULI - 1)), f"are to {STIMULI - 1} stimuli, and there are {STIMULI}"),
        (np.zeros((STIMULI, 3)), "is it (stimulus, neuron)?"),
        (np.zeros(STIMULI), "they have the shape"),
        (np.full((3, STIMULI), np.nan), "leave those out, or give all repeats"),
        (np.full((3, STIMULI, 2), np.nan), "none of neuron 0 to image 0"),
        (np.full((3, STIMULI, 2), np.inf), "must be finite, or NaN"),
        (np.full((3, STIMULI), "a"), "must be numbers"),
        (np.array([[None] * STIMULI]), "Python objects"),
        (None, "damaged or no .npy file"),
    ],
)
def test_responses_that_do_not_fit_are_refused_before_anything_starts(
    values, text, home, tmp_path, capsys
):
    file = tmp_path / "r.npy"
    file.write_bytes(b"\x93NUMPYx") if values is None else np.save(file, values)
    assert command(home, tmp_path / "out", file) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there_or_have_changed(home, tmp_path, capsys):
    responses = saved(tmp_path / "r.npy", np.random.default_rng(0).standard_normal((2, STIMULI)))
    assert command(home, tmp_path / "o", responses, runs=["none"]) == 2
    assert "--run" in capsys.readouterr().err
    assert command(home, tmp_path / "o", tmp_path / "no.npy") == 2
    assert "--responses" in capsys.readouterr().err
    assert main(["predictivity", "--run", str(home / "lc-0"), "--responses", str(responses)]) == 2
    assert "--stimuli must be given" in capsys.readouterr().err
    made = Predictivity.of([home / "lc-0"], home / "stimuli", responses)
    saved(responses, np.zeros((2, STIMULI)))
    with pytest.raises(ParameterError, match="have changed"):
        made.run_one(Task("pixels"), None)


@pytest.mark.slow
def test_neurons_without_repeats_are_left_out_where_a_ceiling_is_needed(home, tmp_path, capsys):
    rng = np.random.default_rng(0)
    single = rng.standard_normal((6, STIMULI, 1)) + 0.5 * rng.standard_normal((6, STIMULI, 4))
    single[0, :, 1:] = np.nan
    single[1] = 2.0
    assert command(home, tmp_path / "o", saved(tmp_path / "r.npy", single)) == 0
    told = capsys.readouterr().err
    assert "1 of 6 neurons always respond alike" in told
    assert "2 of 6 neurons have no reliability" in told
