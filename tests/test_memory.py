"""Memory that runs out is one line; that of a training is estimated before it starts, and compared
with what is free."""

import errno
import sys
from functools import partial

import processes
import pytest
import transformers
from conftest import invoke, refusal

from spacelite import heads
from spacelite import memory as machine
from spacelite.backbones import model
from spacelite.backbones.files import locate
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError, is_out_of_memory
from spacelite.files import human_bytes
from spacelite.memory import left_in_control_group
from spacelite.training import loop, memory
from spacelite.training.config import TrainingConfig

MEASURE = """
import sys
from pathlib import Path
from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.training import loop, memory
from spacelite.training.config import TrainingConfig

path, folder, kind, count = sys.argv[1:5]
settings = {"latent": 400, "inter": 0.2, "intra": 0.001} if kind == "space" else {}
configs = [heads.config(kind, seed=seed, **settings) for seed in range(int(count))]
training = TrainingConfig(epochs=2)

def peak():
    # Not getrusage: a process inherits the peak of the one that starts it.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

with Cache(Path(path)) as cache:
    loop.train(cache, [heads.config("linear")], training)
    before = peak()
    loop.train(cache, configs, training, cache_dir=Path(folder), save=lambda head: None)
    print(memory.needed(configs, cache, training, "cpu"), peak() - before)
"""


@pytest.fixture
def cache(cache_path):
    with Cache(cache_path) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("kind", "count"), [("space", 60), ("linear", 1000), ("mlp", 1000)])
def test_the_estimate_is_at_least_what_a_training_takes(kind, count, cache_path, tmp_path):
    done = processes.run(MEASURE, cache_path, tmp_path, kind, count, fresh=True)
    estimated, measured = map(int, done.stdout.split())
    assert measured > 10e6, "large enough to be measured"
    assert measured * 0.9 <= estimated <= measured * 5, (estimated, measured)


@pytest.mark.parametrize(("precision", "itemsize"), [("float32", 4), ("bfloat16", 2)])
def test_weights_that_do_not_fit_into_memory_are_refused_before_they_are_loaded(
    precision, itemsize, bert, monkeypatch
):
    saved = transformers.AutoModel.from_pretrained(bert)
    size = itemsize * sum(weight.numel() for weight in saved.parameters())
    load = partial(model.Backbone, locate(str(bert)), layer=-1, device="cpu", precision=precision)
    monkeypatch.setattr(model, "free_memory", lambda device: size)
    load()
    monkeypatch.setattr(model, "free_memory", lambda device: size - 1)
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", None)  # nothing may be loaded
    said = refusal(load)
    assert f"take {human_bytes(size)} in {precision}, and" in said
    assert ("or precision=bfloat16" in said) == (precision == "float32")


def test_what_needs_more_than_is_free_is_refused_before_it_is_allocated(cache, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 * 10**9)
    configs = [heads.config("space", latent=10_000, seed=seed) for seed in range(10_000)]
    monkeypatch.setattr(loop, "_Training", None)  # nothing may be allocated
    said = refusal(loop.train, cache, configs, TrainingConfig())
    words = said.split()
    assert said.startswith("10,000 heads need about ") and " 1.8 GB is free" in said
    fitting = int(words[words.index("most") + 1])
    least, more = (
        memory.needed(configs[:count], cache, TrainingConfig(), "cpu")
        for count in (fitting, fitting + 1)
    )
    assert 0 < least <= 1.8e9 < more


def test_the_number_that_is_named_can_be_trained(cache, monkeypatch):
    configs = [heads.config("space", latent=300, seed=seed) for seed in range(40)]
    training = TrainingConfig(epochs=1)
    half = memory.needed(configs, cache, training, "cpu") // 2
    monkeypatch.setattr(memory, "free_memory", lambda device: half)
    said = refusal(loop.train, cache, configs, training).split()
    fitting = int(said[said.index("most") + 1])
    assert 0 < fitting < 40
    assert len(loop.train(cache, configs[:fitting], training)) == fitting


def test_where_not_even_one_fits_other_settings_are_advised(
    cache, cache_path, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**5)
    config = heads.config("space", latent=10_000)
    said = refusal(loop.train, cache, [config], TrainingConfig())
    assert said.startswith("1 head needs about ")
    assert said.endswith("give a smaller batch_size or fewer latent dimensions")
    options = ["--cache", str(cache_path), "--cache-dir", str(tmp_path), "--latent", "9999"]
    done = invoke("train", "--head", "space", *options)
    assert done.exit_code == 1 and "give a smaller --batch-size or fewer" in done.stderr
    assert not list(tmp_path.glob("runs/[!.]*"))


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_limit_of_a_control_group_counts(tmp_path):
    own = tmp_path / "cgroup"
    root = tmp_path / "groups"
    own.write_text("0::/job/step\n")
    assert left_in_control_group(root, own) is None
    group(root / "job", memory__max="1000\n", memory__current="700\n",
          memory__stat="anon 600\ninactive_file 50\n")  # fmt: skip
    assert left_in_control_group(root, own) == 350
    group(root / "job" / "step", memory__max="max\n", memory__current="700\n", memory__stat="")
    assert left_in_control_group(root, own) == 350
    own.write_text("4:cpu,memory:/job\n0::/\n")
    group(root / "memory" / "job", memory__limit_in_bytes="500\n",
          memory__usage_in_bytes="450\n", memory__stat="total_inactive_file 30\n")  # fmt: skip
    assert left_in_control_group(root, own) == 80
    assert left_in_control_group(root, tmp_path / "absent") is None


NO_MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("can't start new thread"),
    RuntimeError("std::bad_alloc"),
    SystemError("<function f> returned NULL without setting an exception"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_what_fails_for_lack_of_memory_is_not_called_damaged(error):
    try:
        try:
            raise error
        except type(error) as cause:
            raise ValueError("cannot read it") from cause
    except ValueError as caught:
        assert is_out_of_memory(caught)
        said = str(SpaceliteError("the file is damaged: remove it"))
    assert said.startswith("memory ran out (") and "damaged" not in said
    assert str(SpaceliteError("the file is damaged")) == "the file is damaged"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),
        ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ],
    ids=str,
)
def test_other_failures_are_not_for_lack_of_memory(error):
    assert not is_out_of_memory(error)
    error.__cause__ = error  # of `raise error from error`
    assert not is_out_of_memory(error)


LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1)) << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from spacelite_cli import main
main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
@pytest.mark.parametrize(
    ("limit", "words"),
    [(20, "memory ran out ("), (32, "pydantic needs"), (64, "numpy needs"), (400, "torch needs")],
)
def test_too_small_an_address_space_is_one_line(limit, words, cache_path):
    done = processes.run(LIMITED, limit, "train", "--cache", cache_path, fresh=True)
    (line,) = done.stderr.splitlines()[-1:]
    assert done.returncode == 1 and line.startswith(f"error: {words}")
    assert "ulimit -v" in line and "Traceback" not in done.stderr


def test_memory_that_runs_out_in_a_command_is_one_line(tmp_path):
    code = "import spacelite\ndef embed(**_): raise MemoryError\nspacelite.embed = embed\n"
    arguments = ["embed", "--dataset", "demo", "--backbone", "minilm"]
    done = processes.run(code + processes.COMMAND, *arguments, "--cache-dir", tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: memory ran out (MemoryError)")
    assert len(done.stderr.splitlines()) == 1


def test_the_limit_of_the_address_space_counts(monkeypatch):
    monkeypatch.setattr(machine, "address_space_left", lambda: 12345)
    assert machine.free_memory("cpu") == 12345
