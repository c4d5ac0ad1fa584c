"""The warm cluster forks safely: every preloaded library works in its forks, repeatedly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from standins.compute.pool import Compute
from standins.compute.work import Status, Work
from standins.core.cloud import Cloud, Settings

USES = {
    "numpy": "import numpy as np; a = np.random.rand(600, 600); print((a @ a).shape, np.random.rand())",
    "duckdb": """
        import duckdb, pyarrow as pa
        c = duckdb.connect(); t = pa.table({"a": list(range(100000))})
        print(c.execute("select count(*), sum(i) from range(2000000) t(i) group by i % 10").fetchall()[0])
        print(c.execute("select sum(a) from t").fetchall())""",
    "pyarrow": """
        import tempfile, pyarrow as pa, pyarrow.dataset as ds, pyarrow.parquet as pq
        d = tempfile.mkdtemp(); t = pa.table({"a": list(range(200000)), "b": ["x"] * 200000})
        for name in "ab": pq.write_table(t, f"{d}/{name}.parquet")
        print(ds.dataset(d).to_table(use_threads=True).group_by("b").aggregate([("a", "sum")]).num_rows)""",
    "deltalake": """
        import tempfile, deltalake, pyarrow as pa
        d = tempfile.mkdtemp(); t = pa.table({"a": [1, 2], "p": ["x", "y"]})
        deltalake.write_deltalake(d, t, partition_by=["p"])
        deltalake.write_deltalake(d, t.slice(0, 1), mode="overwrite", predicate="p = 'x'")
        found = deltalake.DeltaTable(d); assert found.version() == 1
        print(*(f.rpartition("-")[0].partition("part-")[2] + f[-50:] for f in found.file_uris()))""",
    "lightgbm": """
        import lightgbm, numpy as np
        x = np.random.rand(20000, 10); y = (x[:, 0] > 0.5).astype(int)
        lightgbm.LGBMClassifier(n_estimators=10, n_jobs=2, verbose=-1).fit(x, y).predict_proba(x)""",
    "sklearn": """
        import numpy as np
        from sklearn.ensemble import HistGradientBoostingClassifier
        x = np.random.rand(5000, 10); HistGradientBoostingClassifier(max_iter=5).fit(x, x[:, 0] > 0.5)""",
    "great_expectations": """
        import great_expectations as gx, pandas as pd
        batch = gx.get_context(mode="ephemeral").data_sources.add_pandas("p").add_dataframe_asset("a")
        batch = batch.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": pd.DataFrame({"a": [1, None]})})
        assert not batch.validate(gx.expectations.ExpectColumnValuesToNotBeNull(column="a")).success""",
    "matplotlib": """
        import io, matplotlib.pyplot as plt
        plt.plot([1, 2]); plt.savefig(io.BytesIO())""",
    "mlflow": """
        import mlflow
        mlflow.set_tracking_uri("sqlite:///runs.db")
        with mlflow.start_run() as run: mlflow.log_metric("auc", 0.8)
        print(mlflow.MlflowClient().get_run(run.info.run_id).data.metrics)""",
    "threads": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool: print(sum(pool.map(abs, range(100))))""",
    "processes": """
        import multiprocessing as mp
        if __name__ == "__main__":
            with mp.get_context("spawn").Pool(1) as pool: print(pool.map(abs, [-1]))""",
    "http": """
        import http.server, threading, requests
        server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert requests.get(f"http://127.0.0.1:{server.server_port}/", timeout=5).ok""",
}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compute]:
    """A compute whose warm cluster is ready."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STANDINS_WARM", "start")
        cloud = Cloud(
            Settings(tmp_path_factory.mktemp("state"), 1, 2, *"tcsudak", "http://127.0.0.1:9/a", "http://127.0.0.1:9/a")
        )
        compute = cloud.shared(Compute)
        compute.start()
        deadline = time.monotonic() + 120
        while not compute.is_warm:
            assert time.monotonic() < deadline, (compute.folder.parent / "warm.log").read_text()
            time.sleep(0.1)
        yield compute
        cloud.close()


def finish(compute: Compute, run: str, seconds: float = 60) -> Status:
    deadline = time.monotonic() + seconds
    while (status := compute.status(run)).state != "ended":
        assert time.monotonic() < deadline, f"{run} hangs: {compute.output(run).decode()}"
        time.sleep(0.01)
    return status


def script(folder: Path, name: str) -> Path:
    lines = USES[name].splitlines()
    path = folder / f"use_{name}.py"
    path.write_text("\n".join(line.removeprefix("        ") for line in lines))
    return path


@pytest.mark.parametrize("name", USES)
def test_a_preloaded_library_works_in_a_fork(warm: Compute, tmp_path: Path, name: str) -> None:
    warm.submit(name, Work("python_file", str(script(tmp_path, name))))
    assert finish(warm, name).succeeded, warm.output(name).decode()


def test_all_libraries_together_in_forks_at_once(warm: Compute, tmp_path: Path) -> None:
    everything = tmp_path / "everything.py"
    names = [name for name in USES if name != "processes"]
    everything.write_text("\n".join(script(tmp_path, name).read_text() for name in names))
    runs = [f"together-{n}" for n in range(6)]
    for run in runs:
        warm.submit(run, Work("python_file", str(everything)))
    assert [finish(warm, run).exit_code for run in runs] == [0] * 6


def test_forks_draw_different_random_numbers_and_file_names(warm: Compute, tmp_path: Path) -> None:
    path = tmp_path / "random_numbers.py"
    path.write_text(
        "import numpy, random, uuid, tempfile, deltalake, pyarrow\n"
        "deltalake.write_deltalake('t', pyarrow.table({'a': [1]}))\n"
        "print(numpy.random.rand(), random.random(), uuid.uuid4(), tempfile.mktemp(), "
        "*deltalake.DeltaTable('t').get_add_actions().column('path').to_pylist())"
    )
    drawn = []
    for n in range(2):
        warm.submit(f"random-{n}", Work("python_file", str(path)))
        assert finish(warm, f"random-{n}").succeeded, warm.output(f"random-{n}").decode()
        drawn.append(warm.output(f"random-{n}").decode().split())
    assert len(drawn[0]) == 5
    assert not set(drawn[0]) & set(drawn[1])


def test_a_fork_has_no_modules_streams_or_session_of_the_server(warm: Compute, tmp_path: Path) -> None:
    path = tmp_path / "look.py"
    path.write_text(
        "import os, sys\n"
        "print([m for m in sys.modules if m.startswith('standins') or m == 'ml'])\n"
        "print(sys.stdin.read() == '', os.getppid() == os.getpgid(0) == os.getsid(0))\n"
        "print(sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:3], __name__)\n"
        "import standins\n"
    )
    warm.submit("look", Work("python_file", str(path)))
    status = finish(warm, "look")
    output = warm.output("look").decode()
    assert output.startswith("[]\nTrue True\n[0, 1, 2] __main__\n")
    assert status.error.startswith("ModuleNotFoundError"), output


def test_a_warm_start_takes_a_fraction_of_a_cold_one(warm: Compute) -> None:
    begun = time.monotonic()
    warm.submit("quick", Work("wheel", "ml", "ml", ("--help",)))
    assert finish(warm, "quick").succeeded
    assert time.monotonic() - begun < 2
