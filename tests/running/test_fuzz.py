"""Files that somebody else may have written, or damaged: a clear error, and nothing else."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from commands import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import circuitsim as cs
from circuitsim import export, status, studies, sweep
from circuitsim.files import netcdf, trial
from circuitsim.files.arrays import BadFile
from circuitsim.running import records, runner, state
from circuitsim.running.store import Store
from circuitsim.studies.registry import KINDS
from circuitsim.studies.sweep import Study, load_seconds, run_cells

pytestmark = pytest.mark.slow

STUDY = Study(k=(2,), gamma=(0.1,), trials=2, presentations=3, neurons=(3,), engine="propagator",
              codegen="numpy")  # fmt: skip
OPTIONS = ["--k", 2, "--gamma", 0.1, "--trials", 2, "--presentations", 3, "--neurons", 3,
           "--engine", "propagator", "--codegen", "numpy"]  # fmt: skip


class Here(runner.Here):
    """Runs in this process."""


@pytest.fixture(scope="module")
def original(once):
    place, summary = once("original", lambda place: studies.run(STUDY, place / "out.nc", Here()))
    assert summary.failures == []
    return place / "out.nc"


@pytest.fixture(scope="module")
def expected(original):
    return cs.load(original), cs.load_weights(original)


@contextmanager
def within(seconds):
    """Fail what waits, instead of waiting with it."""

    def fail(_signal, _frame):
        raise AssertionError(f"took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def read_all(path):
    return cs.load(path), cs.load_weights(path)


def check_damaged(path, expected):
    """Reading gives what was written, or a clear error."""
    with within(20):
        try:
            found = read_all(path)
        except cs.ParameterError:
            return False
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.equals(theirs)
    return True


def in_process(module, *arguments):
    return module.main(list(map(str, arguments)))


# -- the result -----------------------------------------------------------------------------------


def test_a_result_cut_short_anywhere(original, expected, tmp_path):
    content = original.read_bytes()
    path = tmp_path / "cut.nc"
    lengths = {0, 1, 7, 8, 9, 47, 48, 95, 96, 97, len(content) - 1, len(content) // 2}
    lengths |= set(random.Random(0).sample(range(len(content)), 40))
    for length in lengths:
        path.write_bytes(content[:length])
        assert not check_damaged(path, expected)
    path.write_bytes(content + b"\0" * 100)
    assert not check_damaged(path, expected)


def test_a_result_is_read_by_other_programs(original, expected):
    """The seal does not disturb them."""
    for engine in (None, "h5netcdf"):
        with xr.open_dataset(original, engine=engine) as found:
            np.testing.assert_array_equal(found.snr_w, expected[0].snr_w)


def test_a_result_that_another_program_wrote(original, tmp_path):
    path = tmp_path / "copy.nc"
    xr.load_dataset(original, engine="h5netcdf").to_netcdf(path, engine="h5netcdf")
    with pytest.raises(cs.ParameterError, match="another program wrote it"):
        cs.load(path)


def flipped(content, rng, bits):
    changed = bytearray(content)
    for _ in range(bits):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_a_result_with_bits_flipped(original, expected, tmp_path):
    """None of these files gets as far as HDF5, which some would keep busy for ever."""
    content = original.read_bytes()
    rng = random.Random(1)
    path = tmp_path / "flipped.nc"
    for _ in range(2000):
        path.write_bytes(flipped(content, rng, rng.choice([1, 1, 3, 100])))
        assert not check_damaged(path, expected)


def test_every_number_of_a_result_is_guarded(original, expected, tmp_path):
    """A single bit in any array is noticed."""
    path = tmp_path / "flipped.nc"
    for group, name in (("/", "snr_w"), ("/", "theory_snr_w"), ("/", "gamma"),
                        ("/weights/k2", "weights"), ("/provenance", "seconds")):  # fmt: skip
        shutil.copy(original, path)
        with h5py.File(path, "r") as file:
            offset = file[group][name].id.get_offset()
        content = bytearray(path.read_bytes())
        content[offset + 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(cs.ParameterError, match="its checksum is another"):
            cs.load(path), cs.load_weights(path), load_seconds(path)


def changed(original, path, change):
    shutil.copy(original, path)
    with h5py.File(path, "r+") as file:
        change(file)
    netcdf.seal(path)
    return path


def replaced(group, name, **options):
    def change(file):
        del file[group][name]
        file[group].create_dataset(name, **options)

    return change


def linked(group, name, link):
    def change(file):
        del file[group][name]
        file[group][name] = link

    return change


def attribute(name, value):
    def change(file):
        file.attrs[name] = value

    return change


def described(**values):
    def change(file):
        file.attrs["study"] = json.dumps(json.loads(STUDY.to_json()) | values)

    return change


SHAPE = (1, 1, 1, 1, 2, 4)


@pytest.mark.parametrize(
    "change",
    [
        # Types that are not ours.
        replaced("/", "snr_w", shape=SHAPE, dtype="f4"),
        replaced("/", "snr_w", shape=SHAPE, dtype=">f8"),
        replaced("/", "snr_w", shape=SHAPE, dtype="S8"),
        replaced("/", "snr_w", shape=SHAPE, dtype=h5py.string_dtype()),
        replaced("/", "snr_w", shape=SHAPE, dtype=np.dtype([("a", "f4"), ("b", "f4")])),
        replaced("/", "snr_w", data=h5py.Empty("f8")),
        replaced("/", "snr_w", data=1.0),
        # Absurd sizes, which take no room in the file.
        replaced("/", "snr_w", shape=(10**12,), dtype="f8", chunks=(10**6,)),
        replaced("/", "snr_w", shape=(10**4,) * 6, dtype="f8", chunks=(1,) * 6),
        replaced("/", "k", shape=(10**12,), dtype="i8", chunks=(10**6,)),
        replaced("/", "trial", shape=(10**12,), dtype="i8", chunks=(10**6,)),
        replaced("/weights/k2", "weights", shape=(1, 1, 1, 2, 10**6, 10**6), dtype="f8",
                 chunks=(1, 1, 1, 1, 1000, 1000)),
        replaced("/", "snr_w", shape=SHAPE, dtype="f8", chunks=SHAPE, compression="gzip"),
        # Other files.
        replaced("/", "snr_w", shape=SHAPE, dtype="f8", external=[("/etc/passwd", 0, 64)]),
        linked("/", "snr_w", h5py.ExternalLink("/etc/passwd", "/x")),
        linked("/", "snr_w", h5py.ExternalLink("../other.nc", "/snr_w")),
        linked("/", "weights", h5py.ExternalLink("/dev/zero", "/")),
        linked("/", "snr_w", h5py.SoftLink("/inverse_snr_w")),
        linked("/", "weights", h5py.SoftLink("/")),
        # More, or less, than there should be.
        lambda file: file.create_dataset("../other", data=1.0),
        lambda file: file.create_dataset("other", data=1.0),
        lambda file: file.create_group("weights/k3"),
        lambda file: file.__delitem__("weights"),
        lambda file: file["weights"].__setitem__("k4", file),
        # Studies that are none, or are not this one.
        described(trials=10**15),
        described(trials=-1),
        described(k=[10**9]),
        described(k=[]),
        described(gamma=["0.1"]),
        described(presentations=1e300),
        described(engine="os.system"),
        described(rule="mine"),
        described(rule="mine = __import__('os').system('touch escaped')"),
        described(rule="mine = r - b" + " + 9**9" * 10**5),
        described(rule="circuit = r + b"),
        described(tau={"__class__": "x"}),
        described(gamma=[float("nan")]),
        attribute("study", "[" * 100_000),
        attribute("study", np.zeros(1000)),
        attribute("study", b"\xff\xfe"),
        attribute("study", h5py.Empty("f8")),
        attribute("format", 3),
        attribute("format_version", 10**6),
        attribute("format_version", "2"),
    ],
)  # fmt: skip
def test_a_result_that_lies(change, original, tmp_path, capsys, monkeypatch):
    """Each is met with one message by every command, and by the functions.

    Even if it opens well in a process of its own, as most do: what that costs is not paid for each.
    """
    monkeypatch.setattr(trial, "refused", lambda path: None)
    path = changed(original, tmp_path / "out.nc", change)
    with within(20):
        with pytest.raises(cs.ParameterError):
            read_all(path)
        for module, arguments in ((status, [path]), (export, [path])):
            capsys.readouterr()
            assert in_process(module, *arguments) == 2
            assert len(capsys.readouterr().err.splitlines()) == 1
        assert in_process(sweep, "--reproduce", path) in (1, 2)
    assert [file.name for file in tmp_path.iterdir()] == ["out.nc"]


def test_a_result_of_less_than_its_study(original, tmp_path):
    """Sizes are checked before anything is read."""
    dataset = cs.load(original)
    dataset.attrs["study"] = replace(STUDY, trials=10**14).to_json()
    path = tmp_path / "out.nc"
    with netcdf.writing(path) as add:
        add(dataset, None)
    with within(10), pytest.raises(cs.ParameterError, match="other variables than expected"):
        cs.load(path)


def test_what_is_no_regular_file(original, tmp_path):
    for make in (Path.mkdir, os.mkfifo, lambda p: p.symlink_to("/dev/zero"), lambda p: p.touch()):
        path = tmp_path / "odd.nc"
        make(path)
        with within(10), pytest.raises(cs.ParameterError, match="cannot be read"):
            cs.load(path)
        path.rmdir() if path.is_dir() else path.unlink()
    path.symlink_to(original)  # the user's own choice
    assert cs.load(path).equals(cs.load(original))


# -- what HDF5 itself does not survive ------------------------------------------------------------


def _dimensions(value):
    def change(file):
        del file["snr_w"].attrs["DIMENSION_LIST"]
        value(file, file["snr_w"].attrs)

    return change


def _references(*names):
    def give(file, attributes):
        kind = h5py.special_dtype(vlen=h5py.ref_dtype)
        lists = np.empty(len(names), dtype=object)
        for place, name in enumerate(names):
            null = h5py.Reference()
            lists[place] = np.array([file[name].ref if name else null], dtype=h5py.ref_dtype)
        attributes.create("DIMENSION_LIST", lists, dtype=kind)

    return _dimensions(give)


FORGED = [
    _references("snr_w", "snr_w", "snr_w", "snr_w", "snr_w", "snr_w"),
    _references("weights", "weights/k2", "provenance", "/", "/", "/"),
    _references("", "", "", "", "", ""),
    _references("k"),
    _dimensions(lambda file, attributes: attributes.__setitem__("DIMENSION_LIST", 7.0)),
    lambda file: file["weights"].__setitem__("weights", file["weights"]),
    replaced("/", "snr_w", shape=SHAPE, maxshape=(None,) * 6, dtype="f8",
             chunks=(1, 1, 1, 1, 2, 2**28)),
]  # fmt: skip


@pytest.mark.parametrize("change", FORGED)
def test_a_result_that_is_forged(change, original, tmp_path):
    path = changed(original, tmp_path / "out.nc", change)
    with within(30):
        with pytest.raises(cs.ParameterError, match="cannot be read|has not the numbers") as told:
            read_all(path)
        assert len(str(told.value).splitlines()) == 1
        assert in_process(status, path) == 2


def old_format(original, path):
    """The same in the format that HDF5 had first, which guards none of its own tables by sums."""

    def copied(source, target):
        for name, value in source.attrs.items():
            if name not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"):
                target.attrs[name] = value
        for name in source if isinstance(source, h5py.Group) else ():
            if isinstance(source[name], h5py.Group):
                copied(source[name], target.create_group(name))
            else:
                copied(source[name], target.create_dataset(name, data=source[name][()]))

    with h5py.File(original) as source, h5py.File(path, "w", libver="earliest") as target:
        copied(source, target)
        arrays = []
        source.visititems(lambda name, found: arrays.append(name))
        arrays = [name for name in arrays if isinstance(source[name], h5py.Dataset)]
        for name in arrays:
            if source[name].attrs.get("CLASS") == b"DIMENSION_SCALE":
                target[name].make_scale(source[name].attrs["NAME"])
        for name in arrays:
            for n, scales in enumerate(source[name].dims):
                for scale in scales.values():
                    target[name].dims[n].attach_scale(target[scale.name])
    return path.read_bytes()


def test_a_result_whose_tables_lead_astray(original, expected, tmp_path, thorough):
    """Addresses within the file, replaced by others: cycles, overlaps, places beyond its end."""
    path = tmp_path / "old.nc"
    content = old_format(original, path)
    netcdf.seal(path)
    assert read_all(path)[0].equals(expected[0])
    places = range(0, len(content) - 8, 8)
    words = {at: int.from_bytes(content[at : at + 8], "little") for at in places}
    pointers = {at: to for at, to in words.items() if 0 < to < len(content) and to % 8 == 0}
    rng = random.Random(5)
    for _ in range(1000 if thorough else 4):
        at = rng.choice(sorted(pointers))
        to = rng.choice([rng.choice(sorted(pointers.values())), at, 2**31, 2**40])
        path.write_bytes(content[:at] + to.to_bytes(8, "little") + content[at + 8 :])
        netcdf.seal(path)
        with within(60), suppress(cs.ParameterError):
            read_all(path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("while True: pass", "takes more than 1 s"),
        ("import os; os.abort()", "ends the process that does"),
        ("import sys; print('broken', file=sys.stderr); sys.exit(1)", "broken"),
    ],
)
def test_a_file_that_keeps_the_library_busy_ends_another_process(
    code, message, original, tmp_path, monkeypatch
):
    """None of the files above does that to the library as it is now: a stand-in for it does."""
    stand_in = "from circuitsim.files import trial\ndef main():\n    import sys\n"
    stand_in += "    trial._limit(1, 10**9)\n    sys.stdout.write('ready\\n')\n"
    stand_in += f"    sys.stdout.flush()\n    {code}\n"
    (tmp_path / "stand_in.py").write_text(stand_in)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trial, "__name__", "stand_in")
    monkeypatch.setattr(trial, "_SECONDS", 1)
    path = changed(original, tmp_path / "out.nc", attribute("new", code))
    with within(60), pytest.raises(cs.ParameterError, match=message):
        cs.load(path)


def test_what_is_tried_once_is_believed(original, tmp_path, monkeypatch):
    path = changed(original, tmp_path / "out.nc", attribute("new", "once"))
    tried, real = [], trial.refused
    monkeypatch.setattr(trial, "refused", lambda path: tried.append(path) or real(path))
    read_all(path), cs.load(original)
    assert tried == [path]


# -- cells ----------------------------------------------------------------------------------------


@pytest.fixture
def cell(tmp_path):
    (cell, _) = STUDY.cells
    store = Store(tmp_path / "cells")
    (result,) = run_cells(STUDY, [cell])
    store.write(STUDY, cell, result)
    return store, cell, store.path(STUDY.digest(cell))


def test_cells_cut_short_or_with_bits_flipped(cell):
    store, cell, path = cell
    content = path.read_bytes()
    whole = store.read(STUDY, cell)
    rng = random.Random(4)
    for length in {*range(0, len(content), 53), len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(BadFile):
            store.read(STUDY, cell)
    for _ in range(2000):
        path.write_bytes(flipped(content, rng, rng.choice([1, 1, 20])))
        try:
            found = store.read(STUDY, cell)
        except BadFile:
            continue
        assert np.array_equal(found["weights"], whole["weights"])
        assert all(np.array_equal(found[n], whole[n]) for n in whole)


def test_cells_with_hostile_members(cell, tmp_path):
    store, cell, path = cell
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = lambda text: b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text  # noqa: E731
    hostile = [
        ("../../escaped.npy", b"x", zipfile.ZIP_STORED),
        ("/tmp/escaped.npy", b"x", zipfile.ZIP_STORED),
        ("weights.npy", b"\0" * 10**7, zipfile.ZIP_DEFLATED),
        ("weights.npy", header(b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 4), }\n"),
         zipfile.ZIP_STORED),
        ("weights.npy", header(b"__import__('os').system('touch escaped')\n"), zipfile.ZIP_STORED),
        ("weights.npy", header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (9" + b"9" * 20
                               + b",), }\n"), zipfile.ZIP_STORED),
    ]  # fmt: skip
    for name, data, kind in hostile:
        with zipfile.ZipFile(path, "w") as archive:
            for member, value in (members | {name: data}).items():
                archive.writestr(member, value, kind if member == name else zipfile.ZIP_STORED)
        with within(10), pytest.raises(BadFile):
            store.read(STUDY, cell)
    path.write_bytes(content + b"\0" * 10**6)
    with pytest.raises(BadFile):
        store.read(STUDY, cell)
    path.unlink()
    os.mkfifo(path)
    with within(10), pytest.raises(BadFile, match="not a regular file"):
        store.read(STUDY, cell)
    assert not list(tmp_path.rglob("escaped*"))


# -- records --------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner,
                                                                max_size=4),
    max_leaves=12,
)  # fmt: skip
RULES = st.text("rbzinhx_ ~+-*/()0123456789.e,'", max_size=40).map("a = {}".format)
VALUES = (
    JSON
    | RULES
    | st.sampled_from([10**30, -1, 1e308, [0], ["a"], {}, "nan", [[1]], [10**9], "../x"])
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(Study.__dataclass_fields__)), VALUES))
def test_studies_that_are_none(values):
    text = json.dumps(json.loads(STUDY.to_json()) | values)
    try:
        study = Study.from_json(text)
    except ValueError:
        return
    assert Study.from_json(study.to_json()) == study


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.binary(max_size=60)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("format", "format_version", "study", "host", "pid", "cells"),
                                   VALUES)
    ).map(lambda value: json.dumps(value).encode())
)  # fmt: skip
def test_records_of_any_content(tmp_path, content):
    (tmp_path / "running").mkdir(exist_ok=True)
    (tmp_path / "study.json").write_bytes(content)
    (tmp_path / "running" / "01234567-1.json").write_bytes(content)
    with suppress(records.BadRecord):
        assert isinstance(state.begun(records.read_study(tmp_path), KINDS), Study)
    for process in records.read_running(tmp_path):
        assert process.pid > 0


def test_commands_meet_bad_records(original, tmp_path, capsys):
    output, cells = tmp_path / "out.nc", tmp_path / "out.cells"
    cells.mkdir()
    secret = tmp_path / "secret"
    secret.write_text(STUDY.to_json())
    for content in (b"", b"{", b"[" * 100_000, b"\xff", b"3", secret):
        (cells / "study.json").unlink(missing_ok=True)
        if isinstance(content, bytes):
            (cells / "study.json").write_bytes(content)
        else:
            (cells / "study.json").symlink_to(content)
        assert in_process(status, output) == 2
        said = capsys.readouterr().err
        assert "cannot be read" in said
        assert len(said.splitlines()) == 1
    shutil.copy(original, output)
    assert in_process(status, output) == 0
    assert in_process(sweep, *OPTIONS, "--output", output) == 0
    assert state.begun(records.read_study(cells), KINDS) == STUDY
    assert secret.read_text() == STUDY.to_json()


def test_reports_of_failures_print_what_they_hold(tmp_path):
    folder = tmp_path / "failed"
    folder.mkdir()
    digest = "0" * 32
    for content, shown in (
        (b"", "empty"),
        (b"\xff", "cannot be read"),
        (b"a\n\x1b]0;title\x07\x1b[2J", r"\x1b[2J"),
        (b"x" * 10**6, "xxx"),
    ):
        (folder / f"{digest}.txt").write_bytes(content)
        _, error = records.failure(tmp_path, digest)
        assert shown in error
        assert error.isprintable()
        assert len(error) <= 500
    (folder / f"{digest}.txt").unlink()
    (folder / f"{digest}.txt").symlink_to("/etc/passwd")
    assert "symbolic link" in records.failure(tmp_path, digest)[1]


# -- links that lead elsewhere --------------------------------------------------------------------


def snapshot(directory):
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


@pytest.mark.parametrize("where", ["", "lock", "failed", "running", "bad", "study.json", "folder"])
def test_links_are_not_followed(where, tmp_path, monkeypatch, capsys):
    """A directory of cells that somebody has prepared."""
    outside, place = tmp_path / "outside", tmp_path / "place"
    outside.mkdir()
    place.mkdir()
    output, cells = place / "out.nc", place / "out.cells"
    digests = [STUDY.digest(cell) for cell in STUDY.cells]
    (outside / f"{digests[0]}.txt").write_text("precious")
    (outside / "file").write_text("precious")
    (outside / f".x.{cs.files.machine()}-999999999-x.part").write_text("precious")
    (outside / f"{cs.files.machine()}-999999999.json").write_text("{}")
    target = outside / "file" if where in ("lock", "study.json") else outside
    if where == "":
        cells.symlink_to(target)
    else:
        cells.mkdir()
        (cells / (digests[0][:2] if where == "folder" else where)).symlink_to(target)
    if where == "bad":
        bad = Store(cells).path(digests[1])
        bad.parent.mkdir()
        bad.write_bytes(b"bad")
    before = snapshot(outside)
    code = in_process(sweep, *OPTIONS, "--output", output, "--jobs", 1, "--retry-failed")
    said = capsys.readouterr().err
    assert code == (0 if where in ("failed", "study.json") else 2 if where == "lock" else 1)
    assert code == 0 or "link" in said or "is not a directory of its own" in said
    for arguments in ([*OPTIONS, "--cell", 0], [*OPTIONS, "--merge"]):
        in_process(sweep, *arguments, "--output", output, "--retry-failed")
    in_process(status, output)
    assert snapshot(outside) == before


def test_damaged_results_end_commands_in_one_line(original, tmp_path):
    """As a user would see it."""
    path = tmp_path / "out.nc"
    path.write_bytes(original.read_bytes()[:5000])
    for module, options in (("status", []), ("export", []), ("sweep", ["--reproduce"])):
        done = run(*options, path, module=module)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
