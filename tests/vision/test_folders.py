"""Images in files of the user's own: every layout, every kind of file, and all that is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import unicodedata
import warnings
import zipfile
from concurrent.futures import Future

import numpy as np
import pytest
from commands import wait_for
from PIL import Image

from circuitsim import classify
from circuitsim.checks.validation import ParameterError
from circuitsim.files import is_alive
from circuitsim.vision import Classifier, datasets, decoding, load, pictures, stored
from circuitsim.vision.augmentation import augmented, middle
from circuitsim.vision.runs import Run
from circuitsim.vision.training import Training

SHAPE = (6, 5, 3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CIRCUITSIM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "images"


def pixels(rng, shape=SHAPE):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def put(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    return path


def classes(root, names, number, rng, shape=SHAPE):
    """Folders of PNG files, and what is in them: a list of arrays for each class."""
    made = {}
    for name in names:
        made[name] = [pixels(rng, shape) for _ in range(number)]
        for n, image in enumerate(made[name]):
            put(root / name / f"{n:03}.png", image)
    return made


def same(part, images, labels):
    np.testing.assert_array_equal(np.asarray(part.images), np.stack(images))
    np.testing.assert_array_equal(part.labels, labels)


def refused(function, *texts, **options):
    with pytest.raises(ParameterError) as caught:
        function(**options)
    message = str(caught.value)
    assert "\n" not in message
    for text in texts:
        assert text in message, message
    return message


# --- layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [("train", "test"), ("Train", "Val"), ("training", "validation")])
@pytest.mark.parametrize("stream", [False, True])
def test_folders_to_learn_from_and_to_test_with(root, rng, parts, stream):
    made = [classes(root / part, ("b", "a"), n, rng) for part, n in zip(parts, (3, 2), strict=True)]
    data = datasets.load("folder", root, stream=stream)
    assert data.class_names == ("a", "b")
    assert data.name == "folder"
    assert data.notes == ()
    same(data.train, made[0]["a"] + made[0]["b"], [0] * 3 + [1] * 3)
    same(data.test, made[1]["a"] + made[1]["b"], [0] * 2 + [1] * 2)
    assert isinstance(data.train.images, stored.Lazy) == stream
    with pytest.raises((ValueError, TypeError), match=r"read-only|assignment"):
        data.train.images[0] = 0


def test_a_share_of_one_level_is_set_aside_always_the_same(root, rng):
    made = classes(root, ("a", "b", "c"), 10, rng)
    data, again = (datasets.from_folder(root) for _ in range(2))
    assert (len(data.train), len(data.test)) == (24, 6)
    assert data.digest() == again.digest()
    for label, name in enumerate(data.class_names):
        parts = [np.asarray(p.images)[p.labels == label] for p in (data.train, data.test)]
        assert [len(part) for part in parts] == [8, 2]
        all_of_them = {image.tobytes() for image in np.concatenate(parts)}
        assert all_of_them == {image.tobytes() for image in made[name]}
    assert len(datasets.from_folder(root, test_share=0.5).test) == 15
    assert len(datasets.from_folder(root, test_share=0.999).train) == 3
    refused(datasets.from_folder, "test_share: must be > 0 and < 1", data=root, test_share=1)
    classes(root / "more" / "train", ("a", "b"), 2, rng)
    classes(root / "more" / "test", ("a", "b"), 2, rng)
    refused(datasets.from_folder, "has no effect", data=root / "more", test_share=0.2)


def tiny(root, rng, names=("n03", "n01", "n02")):
    root.mkdir(parents=True)
    (root / "wnids.txt").write_text("".join(f"{name}\n" for name in names))
    images = {}
    for name in names:
        for n in range(2):
            images[f"{name}_{n}"] = pixels(rng, (64, 64, 3))
            put(root / f"train/{name}/images/{name}_{n}.JPEG", images[f"{name}_{n}"])
        (root / f"train/{name}/{name}_boxes.txt").write_text("x\n")
    rows = [f"val_{n}.JPEG\t{names[(7 * n) % 3]}\t0\t0\t62\t62\n" for n in range(12)]
    for n in range(12):
        put(root / f"val/images/val_{n}.JPEG", pixels(rng, (64, 64, 3)))
    (root / "val/val_annotations.txt").write_text("".join(rows))
    put(root / "test/images/test_0.JPEG", pixels(rng, (64, 64, 3)))
    return names


def test_tiny_imagenet(root, rng):
    names = tiny(root / "tiny-imagenet-200", rng)
    data = datasets.load("tiny-imagenet", root)
    assert data.class_names == names
    assert data.train.images.shape == (6, 64, 64, 3)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.notes == ()
    # Files are in the order of their names: val_10 comes before val_2.
    order = sorted(range(12), key=lambda n: f"val_{n}.JPEG")
    assert data.test.labels.tolist() == [(7 * n) % 3 for n in order]
    small = datasets.load("tiny-imagenet", root / "tiny-imagenet-200", image_size=32)
    assert small.train.images.shape == (6, 32, 32, 3)


def test_tiny_imagenet_refused(root, rng):
    tiny(root, rng)
    annotations = root / "val/val_annotations.txt"
    content = annotations.read_text()

    def load(*texts):
        refused(datasets.from_tiny_imagenet, *texts, data=root)

    annotations.write_text(content.replace("n01", "n09"))
    load("the class n09, which train/ has not")
    annotations.write_text("\n".join(content.splitlines()[1:]))
    load("does not tell the class of val_0.JPEG")
    annotations.write_text(content + "val_99.JPEG\tn01\n")
    load("lacks 1 of the 13 images in val_annotations.txt")
    annotations.write_text(content)
    (root / "wnids.txt").write_text("n01\nn02\n")
    load("has the class n03, unlike wnids.txt")
    (root / "wnids.txt").write_text("n01\nn02\nn03\nn04\n")
    load("lacks the class n04, unlike wnids.txt")
    (root / "wnids.txt").write_text("n01\nn01\nn02\nn03\n")
    load("has n01 twice")
    (root / "wnids.txt").write_bytes(b"\xff\xfe\n")
    load("wnids.txt", "cannot be read")
    (root / "wnids.txt").write_text("n01\nn02\nn03\n")
    annotations.unlink()
    load("val: has no val_annotations.txt, nor folders of classes")
    put(root / "val/n01/a.JPEG", pixels(rng, (64, 64, 3)))
    load("val: has the class images, which train/ has not")
    (root / "wnids.txt").unlink()
    load("has no wnids.txt, neither by itself nor in tiny-imagenet-200/")
    (root / "tiny-imagenet-200.zip").write_bytes(b"")
    load("unpack", "tiny-imagenet-200.zip first")


WNIDS = ("n01", "n02", "n03")


def flat_imagenet(root, rng):
    classes(root / "train", WNIDS, 2, rng)
    names = [f"ILSVRC2012_val_{n:08}" for n in range(1, 8)]
    for name in names:
        put(root / "val" / f"{name}.JPEG", pixels(rng))
    labels = [(5 * n) % 3 for n in range(7)]
    return names, labels


def kaggle(root, names, labels):
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ImageId", "PredictionString"])
        rows = [
            [n, f"{WNIDS[c]} 1 2 3 4 {WNIDS[c]} 5 6 7 8"]
            for n, c in zip(names, labels, strict=True)
        ]
        writer.writerows(rows[::-1])


def caffe(root, names, labels):
    lines = [f"{name}.JPEG {label}\n" for name, label in zip(names, labels, strict=True)]
    (root / "val.txt").write_text("".join(lines))


def synsets(root, names, labels):
    text = "".join(f"{WNIDS[label]}\n" for label in labels)
    (root / "imagenet_2012_validation_synset_labels.txt").write_text(text)


def development_kit(root, names, labels):
    """Numbers in an order of their own, which only meta.mat tells."""
    from scipy.io import savemat

    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    numbers = {"n01": 3, "n02": 1, "n03": 2}
    meta = np.zeros(3, [("ILSVRC2012_ID", object), ("WNID", object)])
    for place, (wnid, number) in enumerate(numbers.items()):
        meta[place] = (float(number), wnid)
    savemat(kit / "meta.mat", {"synsets": meta})
    text = "".join(f"{numbers[WNIDS[label]]}\n" for label in labels)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(text)


@pytest.mark.parametrize("listing", [kaggle, caffe, synsets, development_kit])
def test_imagenet_with_one_folder_to_validate(listing, root, rng):
    names, labels = flat_imagenet(root, rng)
    refused(datasets.from_imagenet, "LOC_val_solution.csv", "tells their classes", data=root)
    listing(root, names, labels)
    data = datasets.load("imagenet", root, image_size=8)
    assert data.class_names == WNIDS
    assert data.train.images.shape == (6, 8, 8, 3)
    assert data.test.labels.tolist() == labels


def test_imagenet_in_folders_and_refused(root, rng):
    classes(root / "ILSVRC/Data/CLS-LOC/train", WNIDS, 2, rng)
    classes(root / "ILSVRC/Data/CLS-LOC/val", WNIDS, 1, rng)
    data = datasets.load("imagenet", root)
    assert data.train.images.shape == (6, 224, 224, 3)
    assert data.test.labels.tolist() == [0, 1, 2]
    inner = root / "ILSVRC/Data/CLS-LOC"
    (inner / "val/n03").rename(inner / "val/n04")
    refused(datasets.from_imagenet, "has the class n04, which train/ has not", data=root)


def test_numbers_need_their_names(root, rng):
    names, labels = flat_imagenet(root, rng)
    development_kit(root, names, labels)
    meta = root / "ILSVRC2012_devkit_t12/data/meta.mat"
    content = meta.read_bytes()
    for damaged in (None, content[:100], b"", bytes(2**21 + 1)):
        meta.unlink() if damaged is None else meta.write_bytes(damaged)
        refused(datasets.from_imagenet, "meta.mat", "must be the development kit's", data=root)
    synsets(root, names, labels[:-1])
    (meta.parent / "ILSVRC2012_validation_ground_truth.txt").unlink()
    refused(datasets.from_imagenet, "has 6 lines for 7 images", data=root)


# --- arrays ---------------------------------------------------------------------------------------


def test_arrays_as_keras_and_medmnist_name_them(tmp_path, rng):
    train, test = pixels(rng, (9, 7, 6, 3)), pixels(rng, (6, 7, 6, 3))
    numbers = np.array([3, 5, 7, 3, 5, 7, 3, 5, 7])
    keras = tmp_path / "keras.npz"
    np.savez_compressed(keras, x_train=train, y_train=numbers, x_test=test, y_test=numbers[:6])
    data = datasets.load("npz", keras)
    same(data.train, list(train), [0, 1, 2] * 3)
    same(data.test, list(test), [0, 1, 2] * 2)
    assert data.class_names == ("3", "5", "7")
    medmnist = tmp_path / "medmnist.npz"
    grey = pixels(rng, (9, 7, 6))
    np.savez(
        medmnist, train_images=grey, train_labels=numbers[:, None].astype(np.uint8),
        val_images=grey, val_labels=numbers[:, None], test_images=grey[:6],
        test_labels=numbers[:6, None],
    )  # fmt: skip
    data = datasets.load("npz", medmnist)
    same(data.train, list(grey[..., None]), [0, 1, 2] * 3)
    assert data.notes == (f"not used: val_images, val_labels in {medmnist}",)
    plain = tmp_path / "plain.npz"
    np.savez(plain, images=np.asfortranarray(train / 255.0), labels=numbers.astype(str))
    data = datasets.load("npz", plain, test_share=0.4)
    assert (len(data.train), len(data.test)) == (6, 3)
    whole = np.concatenate([data.train.images, data.test.images])
    assert {i.tobytes() for i in whole} == {i.tobytes() for i in train}
    np.savez(plain, images=train, labels=numbers - 3, class_names=list("abcde"))
    assert datasets.load("npz", plain).class_names == tuple("abcde")
    refused(datasets.load, "has no effect", name="npz", data=keras, test_share=0.2)


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (np.zeros((4, 3, 8, 8), np.uint8), [0, 0, 1, 1], "channels last; images.transpose"),
        (np.zeros((4, 8), np.uint8), [0, 0, 1, 1], "must be numbers of the shape"),
        (np.full((4, 8, 8), np.nan), [0, 0, 1, 1], "4 images with pixels that are NaN"),
        (np.full((4, 8, 8), -1.0), [0, 0, 1, 1], "must be from 0 to 1 or from 0 to 255"),
        (np.full((4, 8, 8), 256, np.uint16), [0, 0, 1, 1], "images // 256"),
        (np.array([[["x"]]] * 4), [0, 0, 1, 1], "must be numbers"),
        (np.zeros((4, 8, 8), complex), [0, 0, 1, 1], "must be numbers"),
        (np.zeros((4, 8, 8)), [0, 0, 1], "must be 4, one for each image"),
        (np.zeros((4, 8, 8)), [0, 0.5, 1, 1], "must be whole numbers or texts"),
        (np.zeros((4, 8, 8)), np.eye(4), "labels.argmax(axis=1)"),
        (np.zeros((4, 8, 8)), [0, 1, 2, 3], "must have two images of some class"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit(images, labels, text):
    refused(datasets.from_arrays, text, images=images, labels=labels)


def test_bytes_of_numbers(rng):
    images = pixels(rng, (3, 4, 5, 3))
    images[0, 0, 0] = 255
    for given in (images, images / 255, images.astype(float), images / np.float32(255),
                  images.astype(np.int64)):  # fmt: skip
        np.testing.assert_array_equal(datasets.as_bytes("x", given), images)
    np.testing.assert_array_equal(datasets.as_bytes("x", images > 127), (images > 127) * 255)


def test_labels_to_test_with_must_be_known(rng):
    images = pixels(rng, (4, 4, 4))
    with pytest.raises(ParameterError, match="test_labels: must be those of images to learn from"):
        datasets.from_arrays(images, [1, 1, 2, 2], images, [1, 2, 3, 1])
    with pytest.raises(ParameterError, match="must be of the kind of the others"):
        datasets.from_arrays(images, [1, 1, 2, 2], images, ["1", "2", "1", "1"])


def test_files_of_arrays_that_are_none(tmp_path, rng):
    path = tmp_path / "x.npz"
    good = {"images": pixels(rng, (40, 4, 4)), "labels": np.arange(40) % 2}

    def load(*texts):
        refused(datasets.load, *texts, name="npz", data=path)

    load("there is no such file")
    path.write_bytes(b"no archive")
    load("it is damaged or no .npz archive")
    np.savez(path, x=1)
    load("must have the arrays x_train, y_train, x_test, y_test; or", "(has x)")
    np.savez(path, images=np.array([{}, None]), labels=np.arange(2))
    load("images is of Python objects, which are not read")
    np.savez(path, **good)
    content = path.read_bytes()
    path.write_bytes(content[:300] + bytes([content[300] ^ 1]) + content[301:])
    load("cannot be read as .npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(1000))
        archive.writestr("labels.npy", header.getvalue())
    load("images does not hold the 1000000000000 bytes that it says")
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("images.npy", b"")
    load("has two arrays of one name")


# --- files of every kind --------------------------------------------------------------------------


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    stream.seek(0)
    return stream


def decoded(stream, shape=SHAPE, resize=False):
    return pictures.decode(stream, pictures.Form(*shape, resize=resize))


def test_kinds_of_images_become_what_one_sees(rng):
    colour = Image.fromarray(pixels(rng))
    expected = np.asarray(colour)
    palette = colour.quantize(256)
    grey = colour.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256 + 77)
    for image in (colour, colour.convert("RGBA"), colour.convert("CMYK")):
        kind = "TIFF" if image.mode == "CMYK" else "PNG"
        np.testing.assert_array_equal(decoded(saved(image, kind)), expected)
    np.testing.assert_array_equal(
        decoded(saved(palette, "PNG")), np.asarray(palette.convert("RGB"))
    )
    see_through = saved(palette, "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(decoded(see_through), np.asarray(palette.convert("RGB")))
    for image in (grey, deep, grey.convert("LA")):
        found = decoded(saved(image, "PNG"), (6, 5, 1))
        np.testing.assert_array_equal(found[..., 0], np.asarray(grey))
        assert pictures.look(saved(image, "PNG")) == (6, 5, 1)
    flat = Image.new("CMYK", (5, 6), (0, 255, 255, 0))
    assert np.abs(decoded(saved(flat, "JPEG")).astype(int) - [255, 0, 0]).max() < 8
    assert pictures.look(saved(flat, "JPEG")) == (6, 5, 3)
    assert pictures.look(saved(grey.quantize(16), "PNG")) == (6, 5, 1)
    turned = colour.getexif()
    turned[0x0112] = 6
    upright = saved(colour, "PNG", exif=turned)
    np.testing.assert_array_equal(decoded(upright, (5, 6, 3)), np.rot90(expected, -1))
    upright.seek(0)
    assert pictures.look(upright) == (5, 6, 3)


def test_the_middle_is_cut_out_and_resized(rng):
    image = Image.fromarray(np.kron(pixels(rng, (4, 4, 3)), np.ones((10, 10, 1), np.uint8)))
    wide = Image.new("RGB", (80, 40), "red")
    wide.paste(image, (20, 0))
    small = decoded(saved(wide, "PNG"), (4, 4, 3), resize=True)
    np.testing.assert_array_equal(
        small, np.asarray(image.resize((4, 4), Image.Resampling.BILINEAR))
    )
    large = Image.linear_gradient("L").resize((2000, 1600)).convert("RGB")
    reduced = decoded(saved(large, "JPEG", quality=95), (16, 20, 3), resize=True)
    whole = large.resize((20, 16), Image.Resampling.BILINEAR)
    assert np.abs(reduced.astype(int) - np.asarray(whole)).max() <= 3


def test_nothing_exhausts_memory(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="exceeds limit of 1000 pixels"):
        decoded(saved(Image.new("L", (40, 40)), "PNG"), resize=True)
    monkeypatch.undo()
    assert Image.MAX_IMAGE_PIXELS is not None
    monkeypatch.setattr(pictures, "_PIXELS", 1000)
    with pytest.raises(ValueError, match="more than 1000 pixels"):
        decoded(saved(Image.new("L", (40, 40)), "PNG"), resize=True)


# --- what people have in their folders ------------------------------------------------------------


def test_what_systems_leave_behind_is_not_seen(root, rng):
    made = classes(root / "train", ("a", "b"), 3, rng)
    classes(root / "test", ("a", "b"), 1, rng)
    for name in (".DS_Store", "train/.DS_Store", "train/a/.DS_Store", "train/a/._000.png",
                 "train/a/Thumbs.db", "test/b/desktop.ini"):  # fmt: skip
        (root / name).write_bytes(b"x")
    for name in (".git", "train/.ipynb_checkpoints", "train/a/.hidden", "test/__MACOSX"):
        put(root / name / "x.png", pixels(rng))
    data = datasets.load("folder", root)
    assert data.notes == ()
    same(data.train, made["a"] + made["b"], [0] * 3 + [1] * 3)


def test_other_files_are_left_out_with_a_word(root, rng):
    classes(root, ("a", "b"), 4, rng)
    (root / "a" / "notes.txt").write_text("x")
    (root / "b" / "photo.HEIC").write_text("x")
    (note,) = datasets.load("folder", root).notes
    assert "1 with .txt, 1 with .heic, such as notes.txt" in note


def test_files_may_lie_deeper_and_be_links(root, tmp_path, rng):
    made = classes(tmp_path / "elsewhere", ("a", "b"), 3, rng)
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "elsewhere" / "a")
    (root / "b" / "deeper" / "yet").mkdir(parents=True)
    for n in range(3):
        (root / "b/deeper/yet" / f"{n}.PNG").symlink_to(tmp_path / f"elsewhere/b/{n:03}.png")
    (root / "b" / "deeper" / "around").symlink_to(root / "b")
    data = datasets.load("folder", root)
    seen = np.concatenate([data.train.images, data.test.images])
    assert {i.tobytes() for i in seen} == {i.tobytes() for i in made["a"] + made["b"]}
    assert len(seen) == 6


def test_names_in_any_alphabet(root, rng):
    names = ("кошка", "猫", "café", "a b", "#1", "🐈")
    classes(root / "train", [unicodedata.normalize("NFC", name) for name in names], 2, rng)
    classes(root / "test", [unicodedata.normalize("NFD", name) for name in names], 1, rng)
    data = datasets.load("folder", root)
    assert set(data.class_names) == set(names)
    assert data.test.labels.tolist() == list(range(6))
    os.makedirs(os.fsencode(root) + b"/train/\xff\xfe")
    message = refused(datasets.from_folder, "has no images of the class", data=root)
    message.encode()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda r: (r / "train/c").mkdir(), "has no images of the class c; add some, or remove"),
        (lambda r: (r / "test/b/000.png").unlink(), "has no images of the class b"),
        (lambda r: (r / "test/b").rename(r / "test/d"), "has the class d, which train/ has not"),
        (lambda r: (r / "train").rename(r / "val"), "has test/ and no train/"),
    ],
)
def test_classes_that_do_not_fit(change, text, root, rng):
    classes(root / "train", ("a", "b"), 2, rng)
    classes(root / "test", ("a", "b"), 1, rng)
    change(root)
    refused(datasets.from_folder, text, data=root)


def test_folders_that_hold_no_classes(root, tmp_path, rng):
    refused(datasets.from_folder, "there is no such directory", data=root)
    put(root / "a.png", pixels(rng))
    refused(datasets.from_folder, "is no directory", data=root / "a.png")
    refused(datasets.from_folder, "has images and no folders", data=root)
    (tmp_path / "empty").mkdir()
    refused(datasets.from_folder, "holds no folders of images", data=tmp_path / "empty")
    classes(root / "birds", ("a", "b"), 2, rng)
    refused(datasets.from_folder, "has one folder, birds", "birds, which has 2", data=root)
    classes(root / "train", ("a", "b"), 2, rng)
    put(root / "test" / "x.png", pixels(rng))
    refused(datasets.from_folder, "nothing tells what they show", data=root)


def test_what_is_not_used_is_noted(root, rng):
    for part in ("train", "test", "val", "extra"):
        classes(root / part, ("a", "b") if part == "train" else ("a",), 2, rng)
    used, lacking = datasets.load("folder", root).notes
    assert "not used: extra/, val/ in" in used
    assert "the class b has no images to test with" in lacking


def test_sizes_and_colours(root, rng):
    classes(root, ("a", "b"), 4, rng, (6, 5))
    assert datasets.from_folder(root).train.images.shape[1:] == (6, 5, 1)
    assert datasets.from_folder(root, channels=3).train.images.shape[1:] == (6, 5, 3)
    put(root / "b" / "z.png", pixels(rng))
    assert datasets.from_folder(root).train.images.shape[1:] == (6, 5, 3)
    put(root / "b" / "zz.png", pixels(rng, (9, 9, 3)))
    refused(
        datasets.from_folder, "image_size: must be given for images of several sizes",
        "000.png has 6 x 5 pixels, b/zz.png 9 x 9", data=root,
    )  # fmt: skip
    assert datasets.from_folder(root, image_size=8).train.images.shape[1:] == (8, 8, 3)
    assert datasets.from_folder(root, image_size=(4, 3)).train.images.shape[1:] == (4, 3, 3)
    for size in (0, 2.5, (1, 2, 3), "x"):
        refused(datasets.from_folder, "image_size: must be", data=root, image_size=size)
    refused(datasets.from_folder, "channels: must be 1 (grey)", data=root, channels=2)
    refused(datasets.from_folder, "workers: must be", data=root, workers=-1)


@pytest.fixture
def spoilt(root, rng):
    """Folders with one file of each kind that cannot be read."""
    classes(root / "train", ("a", "b"), 4, rng)
    classes(root / "test", ("a", "b"), 2, rng)
    whole = saved(Image.fromarray(pixels(rng, (6, 5, 3))), "JPEG").getvalue()
    (root / "train/a/truncated.jpg").write_bytes(whole[:-30])
    (root / "train/a/empty.png").write_bytes(b"")
    (root / "train/b/text.png").write_text("%!PS-Adobe-3.0 EPSF")
    (root / "train/b/gone.png").symlink_to(root / "nowhere")
    os.mkfifo(root / "test/b/pipe.png")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_named_and_counted(stream, workers, spoilt):
    options = {"stream": stream, "workers": workers, "image_size": SHAPE[:2]}
    data = datasets.load("folder", spoilt, skip_bad=True, **options)
    assert (len(data.train), len(data.test)) == (8, 4)
    (note,) = data.notes
    assert "left out 5 files that cannot be read" in note
    assert np.asarray(data.train.images).any(axis=(1, 2, 3)).all()
    if stream:  # found as they are needed
        data = datasets.load("folder", spoilt, **options)
        with pytest.raises(ParameterError, match=r"one file cannot be read; --skip-bad"):
            data.train.images[:]
    else:
        refused(
            datasets.load, "5 files cannot be read; --skip-bad (skip_bad=True) goes on without",
            "a/empty.png: ", "; and 2 more", name="folder", data=spoilt, **options,
        )  # fmt: skip
    assert datasets.load("folder", spoilt, skip_bad=True, **options).notes == (note,)


def test_a_class_of_which_nothing_can_be_read(root, rng):
    classes(root / "train", ("a", "b"), 2, rng)
    classes(root / "test", ("a", "b"), 2, rng)
    for file in (root / "train/b").iterdir():
        file.write_bytes(b"")
    refused(datasets.from_folder, "no image of the class b", data=root, skip_bad=True)


# --- the cache, and processes that decode ---------------------------------------------------------


def cached(tmp_path, ending):
    return sorted((tmp_path / "cache" / "images").glob(f"*{ending}"))


def test_images_are_decoded_once(root, tmp_path, rng, monkeypatch):
    classes(root, ("a", "b"), 5, rng)
    first = datasets.load("folder", root).digest()
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_answer", None)  # decoding one would fail
        assert datasets.load("folder", root).digest() == first
    # Whatever is changed is seen, even where the names stay.
    changed = root / "a" / "002.png"
    put(changed, pixels(rng))
    assert datasets.load("folder", root).digest() != first
    assert len(cached(tmp_path, ".images")) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "description", "gone", "other"])
def test_a_damaged_cache_heals(damage, root, tmp_path, rng):
    classes(root, ("a", "b"), 5, rng)
    first = datasets.load("folder", root).digest()
    (images,), (description,) = cached(tmp_path, ".images"), cached(tmp_path, ".json")
    content = images.read_bytes()
    if damage == "cut":
        images.write_bytes(content[:-1])
    elif damage == "flip":
        images.write_bytes(content[:7] + bytes([content[7] ^ 1]) + content[8:])
    elif damage == "description":
        description.write_text('{"form": [1e9')
    elif damage == "gone":
        images.unlink()
    else:
        said = json.loads(description.read_text())
        description.write_text(json.dumps(said | {"form": [10**9, 10**9, 3, False]}))
    assert datasets.load("folder", root).digest() == first
    assert images.read_bytes() == content


def test_where_no_cache_can_be_written(root, tmp_path, rng):
    classes(root, ("a", "b"), 5, rng)
    first = datasets.load("folder", root).digest()
    (tmp_path / "file").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIRCUITSIM_CACHE", str(tmp_path / "file" / "cache"))
        assert datasets.load("folder", root).digest() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "file", "images"]


def forked(function, *arguments):
    """Call a function in a process of its own; give its number and what it writes to a pipe."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that are not there in the new process
        number = os.fork()
    if not number:
        os.close(reading)
        try:
            function(lambda text: os.write(writing, f"{text}\n".encode()), *arguments)
        finally:
            os._exit(1)
    os.close(writing)
    return number, os.fdopen(reading)


def test_a_killed_decoding_leaves_nothing_that_counts(root, tmp_path, rng, monkeypatch):
    classes(root, ("a", "b"), 40, rng)

    def killed(tell):
        answer = decoding._answer

        def dies(path, form):
            if form is not None and "039" in path:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer(path, form)

        decoding._answer = dies
        datasets.load("folder", root)

    number, _ = forked(killed)
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == -signal.SIGKILL
    assert not cached(tmp_path, ".json")
    assert len(datasets.load("folder", root).train) == 64
    left = [p.suffix for p in (tmp_path / "cache" / "images").iterdir()]
    assert sorted(left) == [".images", ".json", ".lock"]


def test_several_processes_decode_one_set(root, rng):
    classes(root, ("a", "b"), 30, rng)
    started = [forked(lambda tell: tell(datasets.load("folder", root).digest())) for _ in range(4)]
    found = {stream.read() for _, stream in started}
    for number, _ in started:
        os.waitpid(number, 0)
    assert found == {f"{datasets.load('folder', root).digest()}\n"}


@pytest.mark.slow
def test_numbers_do_not_depend_on_processes(root, rng):
    made = classes(root, ("a", "b"), 45, rng)
    plain = datasets.load("folder", root, workers=0)
    everything = np.asarray(plain.train.images)
    order = rng.permutation(len(everything))
    batches = [order[n : n + 8] for n in range(0, 72, 8)]
    for workers in (0, 1, 3):
        data = datasets.load("folder", root, stream=True, workers=workers)
        np.testing.assert_array_equal(np.asarray(data.train.images), everything)
        data.train.announce(batches)
        for batch in batches[:5]:
            np.testing.assert_array_equal(data.train.images[batch], everything[batch])
        # Those that were not announced, or in another order, are right as well.
        other = batches[7][::-1]
        np.testing.assert_array_equal(data.train.images[other], everything[other])
        half = data.train.subset(np.arange(72) % 2 == 0)
        np.testing.assert_array_equal(half.images[3:9], everything[::2][3:9])
        np.testing.assert_array_equal(half.images[4], everything[8])
        np.testing.assert_array_equal(half.images[:, 1:3, :, 0], everything[::2, 1:3, :, 0])
        np.testing.assert_array_equal(half.labels, plain.train.labels[::2])
    assert len(made["a"]) == 45


@pytest.mark.slow
def test_images_are_decoded_ahead(root, rng):
    classes(root, ("a", "b"), 40, rng)
    data = datasets.load("folder", root, stream=True, workers=1)
    ahead = data.train.images._source._ahead
    data.train.announce([[0, 1], [2, 3], [4, 5]])
    wait_for(lambda: all(f.done() for group in ahead._ordered.values() for f in group))
    assert list(ahead._ordered)[:2] == [(0, 1), (2, 3)]
    asked = []
    ahead._order = lambda key: asked.append(key) or []
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(data.train.images[[0, 1]], 0)
    assert (0, 1) not in asked


def test_training_orders_batches_before_it_needs_them(root, rng):
    """While a step is made, the two batches after it are being decoded."""
    classes(root, ("a", "b"), 45, rng, (8, 8, 3))
    data = datasets.load("folder", root, stream=True, workers=1)
    ahead = data.train.images._source._ahead
    announced, waited = [], []

    class Late(Future):
        """Is never ready before somebody waits for it."""

        def __init__(self, paths, form):
            super().__init__()
            self.order = paths, form

        def result(self, timeout=None):
            if not self.done():
                waited.append(len(self.order[0]))
                self.set_result(decoding.answers(*self.order))
            return super().result()

    ahead._decoder.submit = Late

    def announce(groups, plain=ahead.announce):
        announced[:] = [tuple(map(int, group)) for group in groups]  # test images come last
        plain(announced)

    ahead.announce = announce
    options = Training(epochs=1, batch_size=9, learning_rate=1e-3, validation=0.0)
    run = Run.new(data, options, None, network="small", connectivity="conv", width=1)
    steps = []

    def advanced(progress):
        if progress.batch:  # not at the end of the epoch
            steps.append((announced[progress.batch :][:2], list(ahead._ordered)[:2]))

    run.trainer(data).run(None, advanced)
    assert len(steps) == 8
    assert [len(expected) for expected, _ in steps] == [2] * 6 + [1, 0]
    for expected, ordered in steps:
        assert ordered == expected
    assert len(waited) > len(steps)


@pytest.mark.slow
def test_a_process_that_dies_is_replaced(root, rng):
    paths = [str(put(root / f"{n}.png", pixels(rng))) for n in range(6)]
    form = pictures.Form(*SHAPE, resize=False)
    decoder = decoding.Decoder(1)
    expected = decoding.answers(paths, form)
    np.testing.assert_array_equal(decoder.submit(paths, form).result(), expected)
    decoder._idle[0]._process.kill()
    np.testing.assert_array_equal(decoder.submit(paths, form).result(), expected)
    process = decoder._idle[0]._process
    decoder.close()
    assert process.poll() is not None


@pytest.mark.slow
def test_processes_end_with_whoever_asked(root, rng):
    classes(root, ("a", "b"), 20, rng)

    def waits(tell):
        data = datasets.load("folder", root, stream=True, workers=2)
        assert data.train.images[:20].any()
        decoder = data.train.images._source._ahead._decoder
        tell(" ".join(str(worker._process.pid) for worker in decoder._idle))
        signal.pause()

    number, stream = forked(waits)
    decoders = [int(n) for n in stream.readline().split()]
    assert decoders
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    wait_for(lambda: not any(is_alive(n) for n in decoders))


@pytest.mark.slow
def test_a_pickled_set_decodes_elsewhere(root, rng):
    import pickle

    classes(root, ("a", "b"), 5, rng)
    data = datasets.load("folder", root, stream=True, workers=1)
    data.train.images[:2]
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(np.asarray(again.train.images), np.asarray(data.train.images))
    assert again.digest() == data.digest()


# --- commands -------------------------------------------------------------------------------------


def patterns(root, rng, number=40):
    """Two classes that a small network tells apart."""
    for label, name in enumerate(("dark", "light")):
        for n in range(number):
            put(root / name / f"{n}.png", (pixels(rng, (8, 8)) // 4 + 150 * label).astype(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_training_on_a_folder_goes_on_to_the_same_numbers(root, tmp_path, rng, stream, monkeypatch):
    from circuitsim.vision import parallel
    from circuitsim.vision.runs import Run
    from circuitsim.vision.training import Training

    class Stop(Exception):
        pass

    patterns(root, rng)

    def train(directory, workers, stop_at=None):
        data = datasets.load("folder", root, stream=stream, workers=workers)
        run = Run.new(data, Training(epochs=2, batch_size=16, crop_padding=1), None, width=2)
        directory.mkdir(exist_ok=True)
        trainer = run.trainer(data)
        run.write(directory, {})
        trainer.resume(directory)

        def advanced(progress):
            if progress.batches == stop_at:
                raise Stop

        with parallel.threads(1):
            trainer.run(directory, advanced, checkpoint_every=0.0 if stop_at else 300.0)
        with np.load(directory / "checkpoint.npz") as arrays:
            return {n: arrays[n].tobytes() for n in arrays if n != "progress"}

    whole = train(tmp_path / "whole", 0)
    with pytest.raises(Stop):
        train(tmp_path / "parts", 2, stop_at=5)
    assert train(tmp_path / "parts", 1) == whole


@pytest.mark.slow
def test_commands_take_folders(root, tmp_path, rng, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patterns(root, rng)
    (root / "dark" / "bad.png").write_bytes(b"")
    images = ["--dataset", "folder", "--data", str(root)]
    train = ["train", *images, "--epochs", "2", "--width", "2", "--batch-size", "16",
             "--jobs", "1", "--output", "run"]  # fmt: skip
    assert classify.main(train) == 2
    assert "one file cannot be read; --skip-bad" in capsys.readouterr().err
    assert classify.main([*train, "--skip-bad"]) == 0
    assert "left out 1 files that cannot be read" in capsys.readouterr().err
    assert classify.main(["evaluate", "run", *images[2:], "--skip-bad", "--jobs", "1"]) == 0
    assert "16 test images of folder" in capsys.readouterr().out
    assert classify.main(["predict", "run", str(root / "dark/0.png"), "--jobs", "1"]) == 0
    assert "light" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--data .", "--data .: has no effect with the data set digits; --dataset cifar10, "),
        ("--image-size 8", "--image-size 8: has no effect with the data set digits"),
        ("--skip-bad", "--skip-bad"),
        ("--download", "--download"),
        ("--dataset cifar10 --data . --test-share 0.1", "--test-share 0.1: has no effect"),
        ("--dataset folder", "--data"),
        ("--dataset npz --data x.npz --workers 2", "--workers 2: has no effect"),
    ],
)
def test_what_is_not_used_is_refused(arguments, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIRCUITSIM_DATA", raising=False)
    assert classify.main(["train", *arguments.split()]) == 2
    told = capsys.readouterr().err
    assert text in told
    assert len(told.splitlines()) == 1
    assert os.listdir(tmp_path) == []


# --- crops ----------------------------------------------------------------------------------------


def test_crops_are_parts_of_images_and_tests_see_the_middle(rng):
    images = pixels(rng, (5, 9, 7, 3))
    crops = augmented(images, rng, 0, False, (4, 4))
    assert crops.shape == (5, 4, 4, 3)
    places = [
        [(t, c) for t in range(6) for c in range(4)
         if np.array_equal(image[t : t + 4, c : c + 4], crop)]
        for image, crop in zip(images, crops, strict=True)
    ]  # fmt: skip
    assert all(len(place) == 1 for place in places)
    many = augmented(np.repeat(images[:1], 600, axis=0), rng, 0, False, (4, 4))
    assert len({crop.tobytes() for crop in many}) == 6 * 4
    np.testing.assert_array_equal(middle(images, (4, 4)), images[:, 2:6, 1:5])
    assert middle(images, (9, 7)) is images
    # As before where crops have the size of images.
    one, other = (np.random.default_rng(3) for _ in range(2))
    square = images[:, :7]
    np.testing.assert_array_equal(
        augmented(square, one, 2, True), augmented(square, other, 2, True, (7, 7))
    )


def test_rescaled_crops(rng):
    """Of a picture that tells each pixel's place, crops tell where they are from."""
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([4 * rows, 4 * columns, 0 * rows], axis=2).astype(np.uint8)
    crops = augmented(np.repeat(image[None], 400, axis=0), rng, 0, False, (20, 20), 0.1)
    assert crops.shape == (400, 20, 20, 3)
    heights = np.ptp(crops[..., 0].astype(float), axis=(1, 2)) / 4 + 1
    widths = np.ptp(crops[..., 1].astype(float), axis=(1, 2)) / 4 + 1
    shares, aspects = heights * widths / 2400, widths / heights
    assert 0.08 < shares.min() < 0.13
    assert shares.max() > 0.8
    assert 0.7 < aspects.min() < 0.8 < 1.25 < aspects.max() < 1.45
    np.testing.assert_allclose(np.median(aspects), 1, atol=0.08)
    grey = augmented(pixels(rng, (3, 9, 9, 1)), rng, 0, False, (5, 5), 0.5)
    assert grey.shape == (3, 5, 5, 1)


@pytest.mark.slow
def test_training_on_crops(root, tmp_path, rng, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patterns(root, rng, 30)
    images = ["--dataset", "folder", "--data", str(root)]
    small = ["--epochs", "1", "--width", "2", "--batch-size", "16", "--jobs", "1"]
    crops = ["--crop-size", "6", "--crop-scale", "0.3", "--flips"]
    train = ["train", *images, *small, *crops, "--output", "run"]
    assert classify.main(train) == 0
    assert classify.main(["evaluate", "run", *images[2:], "--jobs", "1"]) == 0
    data = datasets.load("folder", root)
    classifier = load("run")
    assert classifier.image_shape_ == (6, 6, 1)
    whole, cut = data.test.images, data.test.images[:, 1:7, 1:7]
    np.testing.assert_array_equal(classifier.logits(whole), classifier.logits(cut))
    made = Classifier(width=2, epochs=1, batch_size=16, crop_size=6, image_shape=(8, 8))
    made.fit(whole.reshape(len(whole), -1), data.test.labels)
    assert made.image_shape_ == (8, 8, 1)
    np.testing.assert_array_equal(made.logits(whole.reshape(len(whole), -1)), made.logits(whole))
    for options, text in (
        ({"crop_size": 9}, "must not be larger than the images"),
        ({"crop_scale": 0.1, "crop_padding": 1}, "crop_padding: has no effect with crop_scale"),
        ({"crop_scale": 1}, "crop_scale: must be > 0 and < 1"),
        ({"crop_size": 0}, "crop_size: must be a whole number >= 1"),
    ):
        refused(Classifier(**options).fit, text, X=whole, y=data.test.labels)
    refused(Classifier(crop_scale=0.5).fit, "needs images of bytes", X=whole / 255,
            y=data.test.labels)  # fmt: skip
