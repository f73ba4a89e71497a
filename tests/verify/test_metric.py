"""A user's metric: what its runner takes, what it may return, and one sentence for everything that goes wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_layermerge.errors import UsageError
from onnx_layermerge.graph import Network, Session
from onnx_layermerge.verify import metric_of
from tests import zoo
from tests.flow import jobs


@pytest.fixture(scope="module")
def network() -> Network:
    net, output = zoo.residual()
    return net.network(net.classifier(output))


def feeds(count: int = 7) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).standard_normal((count, 4, 8, 8)).astype(np.float32)}


def script(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


def test_the_runner_is_the_model_in_batches(network: Network) -> None:
    seen: list[dict[str, np.ndarray]] = []

    def spread(run: Any) -> float:
        seen.append(run(feeds()))
        return float(seen[-1]["scores"].std())

    metric = metric_of(spread, network, 3)
    wanted = Session(network.model).run(feeds())
    np.testing.assert_allclose(seen[0]["scores"], wanted["scores"], rtol=1e-5, atol=1e-6)
    assert metric.original == pytest.approx(float(wanted["scores"].std()))
    values = metric.values(metric.score(network.model))
    assert values.name == "spread" and values.drop == 0 and len(seen) == 2


def test_float64_is_taken_where_the_model_is_float32(network: Network) -> None:
    def metric(run: Any) -> np.float32:
        return run({"x": feeds()["x"].astype(np.float64)})["scores"].mean()

    assert metric_of(metric, network, 16).original == pytest.approx(
        float(Session(network.model).run(feeds())["scores"].mean()), rel=1e-4
    )


@pytest.mark.parametrize("value", [2, 0.5, np.float32(0.5), np.array(3), np.int64(4)])
def test_any_number_counts(network: Network, value: Any) -> None:
    assert metric_of(lambda run: value, network, 4).original == float(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "returned nothing"),
        ("0.9", "returned a str"),
        (True, "returned a bool"),
        (np.zeros(1), r"an array of shape \(1,\)"),
        (float("nan"), "returned nan; return a finite number"),
        (float("inf"), "finite number"),
        (1j, "a complex"),
    ],
)
def test_anything_else_does_not(network: Network, value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        metric_of(lambda run: value, network, 4)
    assert str(caught.value).startswith("--metric <lambda>")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"y": np.zeros((2, 4, 8, 8), "f")}, "inputs are x, but y were given"),
        ({"x": np.zeros((0, 4, 8, 8), "f")}, "at least one"),
        ({"x": np.float32(1)}, "no axis of samples"),
        ({"x": np.zeros((2, 4, 8, 8), complex)}, "float32, but complex128"),
        ({"x": np.zeros((2, 5, 8, 8), "f")}, "--metric"),
        (np.zeros((2, 4, 8, 8), "f"), "a dict of arrays"),
    ],
)
def test_the_runner_says_what_it_was_given_wrong(network: Network, given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        metric_of(lambda run: float(run(given)["scores"].sum()), network, 4)
    assert "\n" not in str(caught.value)


def test_a_model_of_a_fixed_batch_takes_multiples_of_it() -> None:
    net, output = jobs.residual_net((4, 4, 6, 6))
    network = net.network(output)

    def metric(count: int) -> Any:
        return lambda run: float(run({"image": np.ones((count, 4, 6, 6), "f")})["scores"].shape[0])

    assert metric_of(metric(8), network, 4).original == 8
    with pytest.raises(UsageError, match="takes 4 samples at once, and 6 is no multiple"):
        metric_of(metric(6), network, 4)


def test_a_script_finds_what_lies_beside_it_and_leaves_nothing(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "beside_the_metric.py").write_text("HALF = 0.5\n")
    # Dataclasses of postponed annotations look their module up.
    text = (
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Held:\n    part: float\n"
        "def metric(run):\n    from beside_the_metric import HALF\n    return Held(HALF).part\n"
    )
    path = list(sys.path)
    assert metric_of(script(tmp_path, text) + ":metric", network, 4).original == 0.5
    assert sys.path == path and {p.name for p in tmp_path.iterdir()} == {"mine.py", "beside_the_metric.py"}
    sys.modules.pop("beside_the_metric")


@pytest.mark.parametrize(
    ("text", "function", "said"),
    [
        ("", "", "names no function; give script.py:function"),
        ("", ":metric", "has no function 'metric'"),
        ("metric = 3", ":metric", "has no function 'metric'"),
        ("import not_there_at_all", ":metric", "line 1 .ModuleNotFoundError"),
        ("\n\ndef metric(run:", ":metric", "line 3 .SyntaxError"),
        ("def metric(run):\n    return [][1]", ":metric", "line 2 .IndexError: list index out of range"),
        ("def metric(run):\n    raise ValueError('two\\nlines.')", ":metric", "ValueError: two lines.; correct it"),
        ("def metric():\n    return 1", ":metric", "TypeError"),
        ("def metric(run):\n    raise SystemExit", ":metric", "SystemExit: no message"),
    ],
)
def test_a_script_that_fails_is_told_in_one_sentence(
    network: Network, tmp_path: Path, text: str, function: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        metric_of(script(tmp_path, text) + function, network, 4)
    assert "\n" not in str(caught.value) and "mine.py" in str(caught.value)


def test_no_script_and_no_function_at_all(network: Network, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no script"):
        metric_of(str(tmp_path / "none.py:metric"), network, 4)
    with pytest.raises(UsageError, match="of type int"):
        metric_of(3, network, 4)  # type: ignore[arg-type]


def test_outputs_keep_their_axes_wherever_these_count_samples() -> None:
    net = zoo.Net()
    net.node("Transpose", net.conv(net.input(), "c"), name="turned", perm=[1, 2, 0, 3])
    network, seen = net.network("turned"), []
    metric_of(lambda run: seen.append(run(feeds())["turned"]) or 0.0, network, 3)
    np.testing.assert_allclose(seen[0], Session(network.model).run(feeds())["turned"], rtol=1e-5, atol=1e-6)
