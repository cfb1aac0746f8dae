"""Train what examples/routes/stacking.yaml has beside the two models of train.py, and write it under DIR:

    flight-forest/model.onnx, model.yaml   40 random trees over the same 13 numbers, each an input of its own
    flight-stack/model.onnx, model.yaml    logistic regression over the three models' probabilities of being late

    python stack.py --out DIR

The regression that weighs the three must not learn how well they know the flights that they were trained on. So it is
fitted to what copies of them, trained on January to June, say of July and August; the three themselves are those of
train.py, trained on January to August. All is tested on September to December, as there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from skl2onnx.common.data_types import FloatTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import train

LAST_BASE_MONTH = 6  # the copies know January to June, the regression July and August
MEMBERS = {"regression": "flight-delay", "trees": "flight-boost", "forest": "flight-forest"}  # as in stacking.yaml
INPUTS = [f"{member}_probabilities_1" for member in MEMBERS]


def train_forest(rows: pd.DataFrame) -> train.Example:
    """Few, shallow trees: another view of the same numbers, not a better one."""
    pipeline = Pipeline([
        ("numbers", ColumnTransformer([("median", SimpleImputer(strategy="median"), train.NUMBERS)])),
        ("forest", RandomForestClassifier(
            n_estimators=40, max_depth=8, min_samples_leaf=500, max_features=5, random_state=train.SEED, n_jobs=1)),
    ]).fit(rows[train.NUMBERS], rows["late"])
    inputs = [(name, FloatTensorType([None, 1])) for name in train.NUMBERS]
    yaml = FOREST_YAML.format(
        period=train.training_period(rows),
        inputs="\n".join(f"  - {{name: {name}, nullable: true}}" for name in train.NULLABLE))
    return train.Example("flight-forest", pipeline, train.translate("flight-forest", pipeline, inputs), yaml)


def probabilities(estimators: dict[str, object], rows: pd.DataFrame) -> pd.DataFrame:
    """What each member says of being late, under the name that the stacking model reads."""
    columns = {}
    for member, name in MEMBERS.items():
        columns_of = rows[train.NUMBERS].to_numpy() if name == "flight-boost" else rows[train.STRINGS + train.NUMBERS]
        columns[f"{member}_probabilities_1"] = estimators[name].predict_proba(columns_of)[:, 1].astype("float32")
    return pd.DataFrame(columns)


def train_stack(said: pd.DataFrame, late: pd.Series, period: str) -> train.Example:
    pipeline = Pipeline([
        ("columns", ColumnTransformer([("scale", StandardScaler(), INPUTS)])),
        ("regression", LogisticRegression(max_iter=1000)),
    ]).fit(said, late)
    inputs = [(name, FloatTensorType([None, 1])) for name in INPUTS]
    return train.Example("flight-stack", pipeline, train.translate("flight-stack", pipeline, inputs), STACK_YAML.format(period=period))


FOREST_YAML = """\
# Written by stack.py. A null becomes NaN, which the pipeline replaces by the median of the training months.
name: flight-forest
description: Will a departure from New York arrive more than 15 minutes late? 40 random trees, named inputs
file: model.onnx
labels: {{task: binary-classification, trained-on: "{period}"}}
inputs:
{inputs}
"""

STACK_YAML = """\
# Written by stack.py. Its inputs are elements of what the members of an ensemble answer: <member>_<column>_<element>.
name: flight-stack
description: Weighs what the regression, the trees and the forest say of the same flight
file: model.onnx
labels: {{task: binary-classification, trained-on: "{period}"}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to; made if missing")
    out: Path = parser.parse_args().out

    rows = train.departures()
    month = rows["month"]
    base, fold = rows[month <= LAST_BASE_MONTH], rows[(month > LAST_BASE_MONTH) & (month <= train.LAST_TRAINING_MONTH)]
    training, test = rows[month <= train.LAST_TRAINING_MONTH], rows[month > train.LAST_TRAINING_MONTH].reset_index(drop=True)

    def members(of: pd.DataFrame) -> dict[str, train.Example]:
        return {e.name: e for e in (train.train_delay(of), train.train_boost(of), train_forest(of))}

    copies = {name: e.estimator for name, e in members(base).items()}
    stack = train_stack(probabilities(copies, fold), fold["late"], train.training_period(fold))
    final = members(training)
    said = probabilities({name: e.estimator for name, e in final.items()}, test)
    stacked = stack.estimator.predict_proba(said)[:, 1]

    # ONNX Runtime must say of the same inputs what scikit-learn says.
    import onnxruntime as ort

    for example, inputs in ((final["flight-forest"], test[train.NUMBERS]), (stack, said)):
        session = ort.InferenceSession(example.onnx, providers=["CPUExecutionProvider"])
        got = session.run(["probabilities"], {name: inputs[[name]].to_numpy(dtype="float32") for name in inputs})[0][:, 1]
        difference = float(np.abs(got - example.estimator.predict_proba(inputs)[:, 1]).max())
        if difference > train.TOLERANCE:
            raise AssertionError(f"{example.name}: ONNX Runtime differs from scikit-learn by {difference:.2g}")

    def measure(probability: np.ndarray) -> dict[str, float]:
        late = test["late"]
        return {"auc": round(float(roc_auc_score(late, probability)), 4), "log_loss": round(float(log_loss(late, probability)), 4),
                "brier": round(float(brier_score_loss(late, probability)), 4)}

    metrics = {member: measure(said[f"{member}_probabilities_1"].to_numpy()) for member in MEMBERS}
    metrics["mean"] = measure(said.to_numpy().mean(axis=1))
    metrics["stacked"] = measure(stacked)
    for example in (final["flight-forest"], stack):
        folder = out / example.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(example.onnx)
        (folder / "model.yaml").write_text(example.yaml)
        metrics[example.name] = {"bytes": len(example.onnx)}
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
