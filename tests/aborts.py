"""XLA must not abort on any shape that a plain op takes: odd settings, drawn at random, many to a process.

    python tests/aborts.py [--settings 5000] [--seed 0] [--per-process 100] [--ops conv,max_pool]
    python tests/aborts.py --only '{"op": "conv", ...}'

A setting is drawn without regard to sense: empty batches, kernels wider than the input, strides wider than the kernel,
pads wider than both. Where the plain op raises a ValueError it is skipped. Else four functions are compiled and run:
the rule by hand (forward and backward, `handgrad.ops.vjp`) and `jax.vjp` of the plain op, each under `jax.jit` and
under `handgrad.jit`, whose CPU options choose other code in XLA; at times under `jax.vmap` over data, kernels or both.
All must give what the plain op gives under `jax.jit`. Arrays hold small integers: sums are exact in whatever order, and
max pools meet ties.

An abort or a segmentation fault ends a process, so a parent runs the settings in children. When a child dies or hangs,
its settings are halved until one is left that dies alone; that one is then made smaller as long as it dies, and printed
as a command that repeats it.

Compiling takes nearly all of the time. XLA optimizes as it does for a user, but for a drawn third of the settings,
which leave LLVM's expensive passes out, as the tests do; XLA's own passes and its choice of code are the same in both.
"""

import argparse
import json
import math
import random
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from subprocess import PIPE
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from handgrad.ops.rules import RULES

Setting = dict[str, Any]

OPS = ("conv", "conv_transpose", "max_pool", "avg_pool")
CONVS = ("conv", "conv_transpose")
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}  # of the largest value
WORK = 2_000_000  # products or taps of one pass; larger draws would take long and show nothing more
TAPS = 100  # in a pool, where each tap is code to compile; above ops.spatial.MANY_TAPS
CHILD = (sys.executable, __file__, "--child")
SECONDS = (120, 10)  # until a child counts as hanging: for its start, and for each of its settings


class Found(NamedTuple):
    """A setting that went wrong, and how."""

    setting: Setting
    trouble: str

    def __str__(self) -> str:
        return f"{self.trouble}\n    python tests/aborts.py --only {shlex.quote(json.dumps(self.setting))}"


def draw(rng: random.Random, op: str) -> Setting:
    """Any setting of the op, whether it fits or not."""
    ndim = rng.choice([1, 1, 2, 2, 2, 3])
    sizes = [0 if rng.random() < 0.01 else rng.randint(1, 12) for _ in range(ndim)]
    batch = 0 if rng.random() < 0.04 else rng.randint(1, 5)
    channels = 0 if rng.random() < 0.02 else rng.randint(1, 6)
    window = [rng.randint(1, rng.choice([3, 3, size + 4])) for size in sizes]
    settings = {"padding": _padding(rng, ndim)}
    if op not in CONVS or rng.random() < 0.7:
        settings["strides"] = _sizes(rng, ndim, 5)
    if rng.random() < 0.4:
        settings["dilation"] = _sizes(rng, ndim, 4)
    setting = {"op": op, "x": [batch, *sizes, channels], "settings": settings}
    if op in CONVS:
        dividers = [divider for divider in range(1, channels + 1) if channels % divider == 0] or [1]
        groups = rng.choice([1, channels or 1, rng.choice(dividers)])
        features = 0 if rng.random() < 0.02 else groups * rng.randint(1, 3)
        settings["groups"] = groups
        setting |= {"kernel": [*window, channels // groups, features], "bias": rng.random() < 0.5}
        if op == "conv_transpose":
            setting["kernel"] = [*window, channels, features // groups]
            settings["output_padding"] = rng.choice([0, [rng.randint(0, 3) for _ in range(ndim)]])
    else:
        settings |= {"window": window, "ceil_mode": rng.random() < 0.3}
        if rng.random() < 0.3:
            settings["strides"] = None  # the window: tiles
        if op == "max_pool":
            settings["ties"] = rng.choice(["first", "first", "split"])
        else:
            settings["count_include_pad"] = rng.random() < 0.6
    setting["dtype"] = rng.choice(["float32", "float32", "float64", "bfloat16", "float16"])
    setting["llvm"] = rng.choice(["all passes", "all passes", "few passes"])
    setting["vmap"] = rng.choice(["no", "no", "no", "x", *(("kernel", "both") if op in CONVS else "x")])
    return setting


def drawn(count: int, seed: int, ops: Sequence[str], tally: Counter[str]) -> Iterator[Setting]:
    """As many settings as wanted that the plain op takes; the tally counts those skipped on the way."""
    rng = random.Random(seed)
    while count:
        setting = draw(rng, rng.choice(ops))
        try:
            y = out_shape(setting)
        except ValueError:
            tally["refused with a ValueError"] += 1
            continue
        except Exception:
            y = ()  # no way to refuse: a child will name it
        x, *kernel = shapes(setting)[:2]
        taps = math.prod(kernel[0][:-1]) if kernel else math.prod(setting["settings"]["window"])
        if max(math.prod(x), math.prod(y)) * taps > WORK or (not kernel and taps > TAPS):
            tally["too much work"] += 1
            continue
        tally[setting["op"]] += 1
        count -= 1
        yield setting


def shapes(setting: Setting) -> list[tuple[int, ...]]:
    """The shapes of the op's arrays: x, or x, kernel and perhaps bias."""
    made = [setting["x"]]
    if "kernel" in setting:
        features = setting["kernel"][-1] * (
            setting["settings"].get("groups", 1) if setting["op"] == "conv_transpose" else 1
        )
        made += [setting["kernel"], *([[features]] if setting["bias"] else [])]
    return [tuple(shape) for shape in made]


def out_shape(setting: Setting) -> tuple[int, ...]:
    """The shape of y, or the ValueError of an op that does not take the setting."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.dtype(setting["dtype"])) for shape in shapes(setting)]
    return jax.eval_shape(lambda *arrays: RULES[setting["op"]].op(*arrays, **setting["settings"]), *arrays).shape


def check(setting: Setting) -> str:
    """What went wrong with a setting, or "". Should XLA abort, the stage that was printed last tells where."""
    op, settings = setting["op"], setting["settings"]

    def automatic(dy: jax.Array, *arrays: jax.Array) -> Any:
        y, vjp = jax.vjp(lambda *arrays: RULES[op].op(*arrays, **settings), *arrays)
        return y, *vjp(dy)

    def by_hand(dy: jax.Array, *arrays: jax.Array) -> Any:
        y, backward = hg.ops.vjp(op, *arrays, **settings)
        return y, *backward(dy)

    try:
        arrays, axes = values(setting)
    except Exception as error:
        return f"the plain op raised {type(error).__name__}: {str(error)[:400]}"
    names, wanted = ("y", "dx", "dkernel", "dbias"), None
    compilers: dict[str, Callable] = {"jax.jit": jax.jit, "handgrad.jit": hg.jit}
    for f in (automatic, by_hand):
        for name, jit in compilers.items():
            stage = f"{f.__name__} under {name}"
            print(stage, file=sys.stderr, flush=True)
            try:
                got = jax.block_until_ready(jit(f if axes is None else jax.vmap(f, axes))(*arrays))
            except Exception as error:
                return f"{stage} raised {type(error).__name__}: {str(error)[:400]}"
            wanted = got if wanted is None else wanted
            for what, one, other in zip(names, got, wanted, strict=False):
                if difference := compare(one, other, TOLERANCE[setting["dtype"]]):
                    return f"{stage}: {what} {difference}"
    return ""


def values(setting: Setting) -> tuple[list[jax.Array], list[int | None] | None]:
    """The cotangent and the arrays, of integers from -3 to 3, and the axes for `jax.vmap`, or None for no vmap."""
    over = setting["vmap"]
    mapped = [True] + [over in (("x", "both") if n == 0 else ("kernel", "both")) for n in range(len(shapes(setting)))]
    axes = None if over == "no" else [0 if member else None for member in mapped]
    rng = np.random.default_rng(0)
    arrays = []
    for shape, member in zip([out_shape(setting), *shapes(setting)], mapped, strict=True):
        full = (3, *shape) if axes and member else shape
        arrays.append(jnp.asarray(rng.integers(-3, 4, full), setting["dtype"]))
    return arrays, axes


def compare(got: jax.Array, wanted: jax.Array, tolerance: float) -> str:
    """How two arrays differ, or ""."""
    if (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
        return f"is {got.dtype} {got.shape}, not {wanted.dtype} {wanted.shape}"
    one, other = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    scale = np.abs(other, where=np.isfinite(other), out=np.zeros_like(other)).max(initial=0)
    close = np.isclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    if close.all():
        return ""
    place = tuple(int(index) for index in np.argwhere(~close)[0])
    return f"differs at {(~close).sum()} of {close.size} places: {one[place]} at {place}, not {other[place]}"


def checked(settings: Sequence[Setting]) -> Iterator[str]:
    """What went wrong with each setting, each with its part of LLVM's passes."""
    jax.config.update("jax_enable_x64", True)
    for setting in settings:
        jax.config.update("jax_disable_most_optimizations", setting["llvm"] == "few passes")
        yield check(setting)


def run(settings: Sequence[Setting], command: Sequence[str] = CHILD) -> list[str] | str:
    """What went wrong with each setting; or, should their process die or hang, its last words."""
    start, each = SECONDS
    with subprocess.Popen(command, text=True, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        try:
            out, err = process.communicate(json.dumps(settings), timeout=start + each * len(settings))
        except subprocess.TimeoutExpired:
            process.kill()
            return f"hung at: {_last_words(process.communicate()[1])}"
    if process.returncode < 0:
        return f"died by signal {-process.returncode} at: {_last_words(err)}"
    if process.returncode > 0:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{err}")
    return [json.loads(line) for line in out.splitlines()]


def search(settings: Sequence[Setting], command: Sequence[str] = CHILD) -> list[Found]:
    """Run the settings in one process; should it die, halve them until each culprit stands alone."""
    result = run(settings, command)
    if isinstance(result, list):
        return [Found(setting, text) for setting, text in zip(settings, result, strict=True) if text]
    if len(settings) == 1:
        return [Found(*smallest(settings[0], result, command))]
    half = len(settings) // 2
    found = search(settings[:half], command) + search(settings[half:], command)
    if any(one.trouble.startswith(("died", "hung")) for one in found):
        return found
    return [*found, Found({"together": list(settings)}, f"{result}; neither half dies alone")]


def smallest(setting: Setting, trouble: str, command: Sequence[str] = CHILD) -> tuple[Setting, str]:
    """The setting made smaller, number by number, as long as a process dies of it."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in shrunk(setting):
            try:
                out_shape(candidate)
            except ValueError:
                continue
            result = run([candidate], command)
            if isinstance(result, str):
                setting, trouble, smaller = candidate, result, True
                break
    return setting, trouble


def shrunk(setting: Setting) -> Iterator[Setting]:
    """The setting with one thing less, in each way: no vmap, a keyword left out, a number 1, halved or one less."""
    if setting["vmap"] != "no":
        yield setting | {"vmap": "no"}
    for name in setting["settings"].keys() - {"window"}:
        yield setting | {"settings": {k: v for k, v in setting["settings"].items() if k != name}}
    for part in ("x", "kernel", "settings"):
        for value in _reduced(setting.get(part)):
            yield setting | {part: value}


def _reduced(value: Any) -> Iterator[Any]:
    """A tree of ints with one of them made smaller, in each way."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (value | {key: less} for less in _reduced(inner))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from ([*value[:n], less, *value[n + 1 :]] for less in _reduced(inner))
    elif type(value) is int and value > 0:
        yield from sorted({0, 1, value // 2, value - 1} & set(range(value)))


def _sizes(rng: random.Random, ndim: int, largest: int) -> int | list[int]:
    return rng.randint(1, largest) if rng.random() < 0.3 else [rng.randint(1, largest) for _ in range(ndim)]


def _padding(rng: random.Random, ndim: int) -> Any:
    small, huge = 3, rng.choice([15, 40])
    pairs = [[rng.randint(0, small), rng.randint(0, small)] for _ in range(ndim)]
    one_huge = [[rng.choice([0, rng.randint(0, huge)]), rng.choice([0, rng.randint(0, huge)])] for _ in range(ndim)]
    return rng.choice(["SAME", "VALID", rng.randint(0, 5), pairs, pairs, one_huge])


def _last_words(err: str) -> str:
    return " | ".join(line.strip() for line in err.splitlines()[-2:])


def main() -> None:
    """Try many settings, or one, and exit with 1 if any went wrong."""
    parser = argparse.ArgumentParser(description="Search for settings on which XLA aborts or the rules by hand differ.")
    parser.add_argument("--settings", type=int, default=5000, help="how many to try that the plain op takes")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--per-process", type=int, default=100, help="settings that share a process")
    parser.add_argument("--ops", default=",".join(OPS), help="names of ops, with commas")
    parser.add_argument("--only", type=json.loads, metavar="SETTING", help="try this one, in this process")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        for trouble in checked(json.load(sys.stdin)):
            print(json.dumps(trouble), flush=True)
        return
    if args.only:
        sys.exit("; ".join(filter(None, checked(args.only.get("together", [args.only])))) or None)
    jax.config.update("jax_enable_x64", True)
    tally: Counter[str] = Counter()
    settings = list(drawn(args.settings, args.seed, args.ops.split(","), tally))
    print(f"{len(settings)} settings drawn: {dict(tally)}", flush=True)
    found: list[Found] = []
    for start in range(0, len(settings), args.per_process):
        new = search(settings[start : start + args.per_process])
        found += new
        for one in new:
            print(one, flush=True)
        print(f"{min(start + args.per_process, len(settings))} tried, {len(found)} went wrong", flush=True)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
