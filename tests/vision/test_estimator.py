"""The classifier as scikit-learn, and those who use it, want it to be."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.fixes import parse_version
from sklearn.utils.validation import check_is_fitted

import circuitsim as cs
from circuitsim.vision import Classifier, datasets, parallel
from circuitsim.vision.datasets import Dataset, ImageSet
from circuitsim.vision.runs import Run
from circuitsim.vision.sharing import Sharing
from circuitsim.vision.stored import Lazy
from circuitsim.vision.training import Diverged, Training

SMALL = {"width": 4, "epochs": 2, "batch_size": 16, "learning_rate": 0.03}

# What scikit-learn checks and is not so here, and why.
DOES_NOT_APPLY = {
    "check_array_api_input": "networks are computed in NumPy, and arrays of other libraries are "
    "converted to its own",
    "check_methods_sample_order_invariance": "asks for 9 digits of what is computed with 7: images "
    "are float32, and a matrix product rounds a column as its place has it",
}


def images(number=60, seed=1, shape=(7, 6, 3), n_classes=3):
    """Noise around one pattern for each class, and the classes' numbers."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).integers(60, 196, (n_classes, *shape))
    labels = np.arange(number) % n_classes
    noise = rng.normal(0, 30, (number, *shape))
    return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def learned():
    return Classifier(**SMALL).fit(*images())


def checks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it inherits from nothing
        # Rows of numbers are images of one row.
        of_rows = Classifier(image_shape=(1, -1), **SMALL | {"epochs": 3})
        return [check for _, check in estimator_checks_generator(of_rows)]


def name_of(check):
    return check.func.__name__


@pytest.mark.slow
@pytest.mark.parametrize(
    "check", [c for c in checks() if name_of(c) not in DOES_NOT_APPLY], ids=name_of
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(check):
    check(Classifier(image_shape=(1, -1), **SMALL | {"epochs": 3}))


def test_checks_that_do_not_apply_are_still_made():
    made = {name_of(check) for check in checks()}
    if parse_version(sklearn.__version__) < parse_version("1.9"):  # made for others alone before
        made.add("check_array_api_input")
    assert set(DOES_NOT_APPLY) <= made


def test_images_are_classified_alike_in_any_company(learned):
    """What takes the place of the check that asks for more digits than there are."""
    given, _ = images(50, seed=3)
    order = np.random.default_rng(0).permutation(50)
    expected = learned.predict_proba(given)
    np.testing.assert_allclose(learned.predict_proba(given[order]), expected[order], atol=1e-6)
    alone = np.concatenate([learned.predict_proba(image[None]) for image in given[:5]])
    np.testing.assert_allclose(alone, expected[:5], atol=1e-6)


def test_parameters_are_those_of_a_training():
    """Whatever can be said of a training can be said here."""
    names = set(Classifier().get_params())
    fields = set(Training.__dataclass_fields__) - {"seed"}
    others = {"network", "connectivity", "width", "sharing", "image_shape", "random_state"}
    others |= {"first_conv"}
    assert names == fields | others | {"threads"}
    defaults = Training(validation=0.0)
    for name in fields - {"batch_size"}:
        value = Classifier().get_params()[name]
        assert value in (None, ()) or value == getattr(defaults, name)


def test_it_is_the_training_of_the_command():
    given, labels = images(90)
    held_out = images(30, seed=2)
    data = Dataset("x", ImageSet(given, labels), ImageSet(*held_out), ("a", "b", "c"))
    options = {"batch_size": 16, "epochs": 2, "crop_padding": 1, "flips": True, "validation": 0.2,
               "share_every": 3}  # fmt: skip
    sharing = Sharing("circuit", presentations=10)
    run = Run.new(data, Training(**options, seed=5), sharing, width=3)
    trainer = run.trainer(data)
    with parallel.threads(1):
        trainer.run(None, lambda _: None)
    classifier = Classifier(**options, sharing=sharing, random_state=5, width=3)
    classifier.fit(given, labels)
    for name, values in trainer.network.parameters().items():
        np.testing.assert_array_equal(classifier.network_.parameters()[name], values)
    assert classifier.run_.mean == run.mean
    assert classifier.history_["validation_top1"].sizes == {"epoch": 2}
    assert classifier.history_["snr_w"].sizes == {"epoch": 2, "layer": 4}


@pytest.mark.parametrize(
    "labels",
    [["cat", "dog", "eel"], [3, 5, 7], [-1, 0, 1], [1.0, 2.0, 3.0], [b"a", b"b", b"c"],
     np.array(["x", "yy", "zzz"], object)],
    ids=repr,
)  # fmt: skip
def test_labels_of_any_kind(labels):
    given, numbers = images(45)
    y = np.asarray(labels)[numbers]
    classifier = Classifier(**SMALL).fit(given, y)
    assert classifier.classes_.tolist() == sorted(labels)
    assert set(classifier.predict(given).tolist()) <= set(labels)
    assert classifier.score(given, y) == np.mean(classifier.predict(given) == y)
    assert classifier.class_names == tuple(map(str, sorted(labels)))
    np.testing.assert_allclose(classifier.predict_proba(given).sum(axis=1), 1)


@pytest.mark.slow
def test_scale_and_shape_do_not_matter():
    given, labels = images(45)
    expected = Classifier(**SMALL).fit(given, labels).predict_proba(given)
    forms = {
        "0..255": given.astype(float),
        "0..1": given / 255,
        "float32": (given / np.float32(255)),
        "integers": given.astype(np.int64),
        "columns first": np.asfortranarray(given),
        "strided": np.repeat(given, 2, axis=0)[::2],
    }
    for name, form in forms.items():
        found = Classifier(**SMALL).fit(form, labels)
        np.testing.assert_allclose(found.predict_proba(form), expected, atol=2e-3, err_msg=name)
    rows = given.reshape(45, -1)
    flat = Classifier(image_shape=(7, 6, 3), **SMALL).fit(rows, labels)
    np.testing.assert_array_equal(flat.predict_proba(rows), expected)
    np.testing.assert_array_equal(flat.predict_proba(given), expected)
    assert (flat.n_features_in_, flat.image_shape_) == (126, (7, 6, 3))
    grey = Classifier(**SMALL).fit(given[..., 0], labels)
    np.testing.assert_array_equal(
        grey.predict_proba(given[..., 0]),
        Classifier(**SMALL).fit(given[..., :1], labels).predict_proba(given[..., :1]),
    )


def test_images_that_are_read_when_they_are_needed():
    given, labels = images(45)
    lazy = ImageSet(np.asarray(given), labels).images
    lazy = Lazy(lazy, np.arange(45))
    found = Classifier(**SMALL).fit(lazy, labels)
    np.testing.assert_array_equal(found.logits(lazy), found.logits(given))
    np.testing.assert_array_equal(
        found.logits(given), Classifier(**SMALL).fit(given, labels).logits(given)
    )


def test_another_scale_is_noticed(learned):
    given, labels = images(45)
    with pytest.warns(UserWarning, match="multiply them by 255") as told:
        learned.predict(given / 255)
    assert told[0].filename == __file__
    unit = Classifier(**SMALL).fit(given / 255, labels)
    with pytest.warns(UserWarning, match="divide them by 255"):
        unit.predict(given.astype(float))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned.predict(np.zeros((2, 7, 6, 3)))
        np.testing.assert_allclose(
            unit.predict_proba(given), unit.predict_proba(given / 255), atol=1e-6
        )


@pytest.mark.slow
def test_within_scikit_learn():
    given, labels = images(45)
    rows = given.reshape(45, -1) / 255
    flat = Classifier(image_shape=(7, 6, 3), **SMALL)
    assert cross_val_score(Classifier(**SMALL), given, labels, cv=2).shape == (2,)
    pipeline = make_pipeline(StandardScaler(), flat).fit(rows, labels)
    assert pipeline.predict_proba(rows).shape == (45, 3)
    assert "Classifier" in pipeline._repr_html_()
    pipeline = make_pipeline(FunctionTransformer(lambda x: x[:, 1:]), Classifier(**SMALL))
    assert pipeline.fit(given, labels).score(given, labels) > 1 / 3
    search = GridSearchCV(Classifier(**SMALL), {"width": [2, 3]}, cv=2).fit(given, labels)
    assert search.best_params_["width"] in (2, 3)
    assert is_classifier(flat)
    assert repr(clone(flat)) == repr(flat)
    assert not hasattr(clone(flat.fit(rows, labels)), "network_")


@pytest.mark.slow
def test_after_it_has_learned(learned):
    given, labels = images(45, seed=3)
    check_is_fitted(learned)
    calibrated = CalibratedClassifierCV(FrozenEstimator(learned)).fit(given, labels)
    assert calibrated.predict_proba(given).shape == (45, 3)
    rows = given.reshape(45, -1)
    found = permutation_importance(learned, rows[:, :], labels, n_repeats=1, random_state=0)
    assert found.importances_mean.shape == (126,)
    again = pickle.loads(pickle.dumps(learned))
    np.testing.assert_array_equal(again.predict_proba(given), learned.predict_proba(given))
    assert len(pickle.dumps(learned)) < 10 * sum(
        a.nbytes for a in learned.network_.parameters().values()
    )
    with pytest.raises(NotFittedError, match="call fit first"):
        Classifier().predict(given)
    with pytest.raises(NotFittedError):
        check_is_fitted(Classifier())


def test_score_takes_numbers_or_names():
    digits = datasets.load("digits")
    given, labels = digits.train.images[:200], digits.train.labels[:200]
    found = Classifier(**SMALL).fit(given, labels)
    expected = np.mean(found.predict(given) == labels)
    assert found.score(given, labels) == expected > 0.1
    assert found.score(given, np.array(found.class_names)[labels]) == expected
    assert found.score(given, labels[:, None]) == expected
    weights = np.random.default_rng(0).random(200)
    right = found.predict(given) == labels
    assert found.score(given, labels, weights) == pytest.approx(np.average(right, weights=weights))
    for wrong, text in ((["one"] * 200, "y: must be of the kind of classes_ (0, 1, 2, ...)"),
                        (labels[:3], "must be 200 labels, one for each image")):  # fmt: skip
        with pytest.raises(cs.ParameterError) as caught:
            found.score(given, wrong)
        assert text in str(caught.value)
    with pytest.raises(cs.ParameterError, match="sample_weight: must be 200"):
        found.score(given, labels, weights[:3])
    named = Classifier(**SMALL).fit(given, np.array(list("abcdefghij"))[labels])
    with pytest.raises(cs.ParameterError, match=r"of the kind of classes_ \('a', 'b', 'c', ...\)"):
        named.score(given, labels)


def spoilt(value):
    given = images()[0].astype(float)
    given[3, 2, 1, 0] = value
    return given


LABELS = images()[1]


@pytest.mark.parametrize(
    ("given", "labels", "options", "text"),
    [
        (spoilt(np.nan), LABELS, {}, "Input X contains NaN; leave such images out"),
        (spoilt(np.inf), LABELS, {}, "Input X contains infinity"),
        (images()[0], LABELS * 0, {}, "at least two classes: of one class there is nothing"),
        (images()[0], LABELS + 0.5, {}, "Unknown label type: continuous"),
        (images()[0], LABELS[:-1], {}, "y: must be 60 labels, one for each image (got (59,))"),
        (images()[0], None, {}, "requires y to be passed"),
        (images()[0].reshape(60, -1), LABELS, {}, "image_shape: must be given for images"),
        (np.zeros((60, 64)), LABELS, {}, "such as (8, 8)"),
        (images()[0].reshape(60, -1), LABELS, {"image_shape": (7, 7)}, "must fit rows of 126"),
        (images()[0].reshape(60, -1), LABELS, {"image_shape": 7}, "rows and columns"),
        (images()[0].reshape(60, -1), LABELS, {"image_shape": (7, -18)}, "rows and columns"),
        (images()[0].reshape(60, -1), LABELS, {"image_shape": [[7, 18], [1]]}, "rows and columns"),
        (images()[0][0, 0, 0], LABELS, {}, "Reshape your data"),
        (images()[0][None], LABELS, {}, "Reshape your data"),
        (images()[0][:1], LABELS[:1], {}, "of one class"),
        (images()[0][:0], LABELS[:0], {}, "Found array with 0 sample(s)"),
        (images()[0].astype(str), LABELS, {}, "X: must be numbers"),
        (images()[0] * 1j, LABELS, {}, "Complex data not supported"),
        (images()[0], LABELS, {"epochs": 0}, "epochs: must be a whole number >= 1"),
        (images()[0], LABELS, {"batch_size": "all"}, 'a whole number or "auto"'),
        (images()[0], LABELS, {"network": "vgg"}, "network: must be one of"),
        (images()[0], LABELS, {"sharing": "instant"}, "share_every"),
        (images()[0], LABELS, {"crop_padding": 6}, "must be smaller than the images (7 x 6)"),
        (images()[0], LABELS, {"validation": 0.01}, "sets no image aside"),
        (images()[0], LABELS, {"validation": np.nan}, "validation: must be a finite number"),
        (images()[0], LABELS, {"repetitions": 0}, "repetitions: must be a whole number >= 1"),
        (images()[0], LABELS, {"repetitions": 10**30}, "repetitions: must be < 10000"),
        (images()[0], LABELS, {"crop_size": 10**30}, "crop_size: must be < 100000"),
        (images()[0], LABELS, {"width": 10**30}, "width: must be < 1e+06"),
        (images()[0], LABELS, {"random_state": -1}, "seed: must be a whole number >= 0"),
    ],
)
def test_what_does_not_fit_is_refused(given, labels, options, text):
    with pytest.raises(ValueError) as caught:
        Classifier(**options).fit(given, labels)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "number", "options", "text"),
    [
        ((2, 6, 1), 60, {}, "images of 2 x 6 are smaller than kernels of 3 x 3"),
        ((7, 6, 3), 20, {"batch_size": 64}, "batch_size=64 is more than there are images: batches "
         "are of 20"),
        ((3, 9, 9), 60, {}, "if they come first, give X.transpose(0, 2, 3, 1)"),
    ],
)  # fmt: skip
def test_what_may_be_meant_otherwise_is_warned_of(shape, number, options, text):
    given, labels = images(number, shape=shape)
    with pytest.warns(UserWarning, match=re.escape(text)) as told:
        found = Classifier(**SMALL | options).fit(given, labels)
    assert told[0].filename == __file__
    assert found.predict(given).shape == (number,)


def test_rates_that_diverge():
    given, labels = images()
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="a lower one than learning_rate"):
        Classifier(width=2, optimiser="sgd", learning_rate=1e30, epochs=3).fit(given, labels)


def test_random_states():
    given, labels = images(30)

    def weights(state):
        found = Classifier(**SMALL, random_state=state).fit(given, labels)
        return found.network_.parameters()["layer1.weights"].copy()

    np.testing.assert_array_equal(weights(3), weights(np.int64(3)))
    state = np.random.RandomState(0)
    one, other = weights(state), weights(state)
    assert (one != other).any()
    np.testing.assert_array_equal(one, weights(np.random.RandomState(0)))
    assert (weights(None) != weights(None)).any()
    weights(np.random.default_rng(0))


def test_repetitions_and_small_batches():
    given, labels = images(30)
    found = Classifier(width=2, epochs=1, repetitions=3, crop_padding=1).fit(given, labels)
    assert found.run_.training.batch_size % 3 == 0
    assert found.run_.training.batch_size <= 90


@pytest.mark.slow
def test_without_scikit_learn():
    """Nothing here needs it, and what says so does not either."""
    script = (
        "import sys, numpy as np\n"
        "sys.modules['sklearn'] = None\n"
        "import circuitsim as cs\n"
        "x = np.random.default_rng(0).random((20, 5, 5)); y = np.arange(20) % 2\n"
        "c = cs.vision.Classifier(width=2, epochs=1)\n"
        "try:\n    c.predict(x)\n"
        "except cs.ParameterError as error:\n    assert 'not fitted' in str(error)\n"
        "c.fit(x, y); assert c.predict(x).shape == (20,); c.get_params(); repr(c)\n"
        "try:\n    cs.vision.datasets.load('digits')\n"
        "except cs.ParameterError as error:\n    assert 'circuitsim[vision]' in str(error)\n"
        "else:\n    raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
