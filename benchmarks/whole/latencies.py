"""Median and 99th percentile of a run's latencies, as JSON: `python -m benchmarks.whole.latencies RUN`."""

import json
import sys
from pathlib import Path

import polars


def main() -> None:
    """Read the table of results and print."""
    column = polars.scan_parquet(Path(sys.argv[1]) / "results.parquet").select("latency_s").collect()["latency_s"]
    assert column.null_count() == 0
    print(json.dumps({"p50": column.quantile(0.5, "nearest"), "p99": column.quantile(0.99, "nearest")}))


if __name__ == "__main__":
    main()
