"""Writes the models that the tests of scorers/onnx and scorers/scorertest run. Same bytes every time.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make_models.py

Each is far below 100 kB. What a model is for stands at the function that makes it.
"""

import pathlib

import lightgbm
import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LGBMFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = pathlib.Path(__file__).parent
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
TARGET = {"": 18, "ai.onnx.ml": 3}


def rows(n, width, seed=1):
    return np.random.default_rng(seed).normal(size=(n, width))


def save(name, model):
    onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def graph(name, nodes, inputs, outputs, weights=()):
    g = helper.make_graph(nodes, name, [helper.make_tensor_value_info(*i) for i in inputs],
                          [helper.make_tensor_value_info(*o) for o in outputs],
                          [numpy_helper.from_array(w, k) for k, w in weights])
    save(name, helper.make_model(g, opset_imports=OPSETS, ir_version=9))


def strip(model):
    """Drops what differs from run to run: converters name graphs at random."""
    model.graph.name = "graph"
    return model


def linear():
    """A linear classifier: a lone row gets other last bits than two (invariant_padded)."""
    x = rows(400, 13)
    y = (x @ rows(13, 1, 2)[:, 0] > 0).astype(int)
    m = LogisticRegression().fit(x, y)
    save("linear", strip(to_onnx(m, initial_types=[("features", FloatTensorType([None, 13]))], target_opset=TARGET,
                                 options={id(m): {"zipmap": False}})))


def zipmap():
    """As scikit-learn exports it by default: labels are strings, probabilities a sequence of maps."""
    x = rows(300, 4)
    y = np.array(["high", "low", "mid"])[np.digitize(x[:, 0], [-0.5, 0.5])]
    save("zipmap", strip(to_onnx(LogisticRegression().fit(x, y), initial_types=[("x", FloatTensorType([None, 4]))],
                                 target_opset=TARGET)))


def columns():
    """Named columns of strings and floats, [N,1] each; missing floats are imputed."""
    import pandas as pd

    rng = np.random.default_rng(3)
    carrier = rng.choice(["AA", "B6", "UA", "Ünïted"], 500)
    x = pd.DataFrame({"carrier": carrier, "delay": rng.normal(10, 5, 500), "distance": rng.uniform(100, 3000, 500)})
    y = (x["delay"] + 5 * (carrier == "UA") > 11).astype(int)
    m = make_pipeline(ColumnTransformer([
        ("text", OneHotEncoder(handle_unknown="ignore"), ["carrier"]),
        ("number", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["delay", "distance"]),
    ]), LogisticRegression()).fit(x, y)
    types = [("carrier", StringTensorType([None, 1])), ("delay", FloatTensorType([None, 1])), ("distance", FloatTensorType([None, 1]))]
    save("columns", strip(to_onnx(m, initial_types=types, target_opset=TARGET, options={id(m): {"zipmap": False}})))


def forest():
    """Trees: the same bits at every batch size."""
    x = rows(500, 8)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    m = RandomForestClassifier(n_estimators=20, max_depth=5, random_state=0).fit(x, y)
    save("forest", strip(to_onnx(m, initial_types=[("x", FloatTensorType([None, 8]))], target_opset=TARGET,
                                 options={id(m): {"zipmap": False}})))


def lightgbm_model():
    """LightGBM's converter declares the label as [1]; it is [N]."""
    x = rows(500, 6)
    y = (x[:, 0] + x[:, 1] ** 2 > 0.5).astype(int)
    m = lightgbm.LGBMClassifier(n_estimators=10, num_leaves=15, random_state=0, verbose=-1, deterministic=True, force_row_wise=True).fit(x, y)
    save("lightgbm", strip(convert_lightgbm(m, initial_types=[("x", LGBMFloat([None, 6]))], target_opset=15, zipmap=True)))


def double():
    """Doubles in and out."""
    x = rows(200, 5)
    m = LinearRegression().fit(x, x @ np.arange(1.0, 6.0))
    save("double", strip(to_onnx(m, initial_types=[("x", DoubleTensorType([None, 5]))], target_opset=TARGET)))


def mlp():
    """A small network of matrix products."""
    x = rows(300, 32)
    m = MLPRegressor(hidden_layer_sizes=(64, 64), max_iter=30, random_state=0).fit(x, np.sin(x[:, 0]))
    save("mlp", strip(to_onnx(m, initial_types=[("x", FloatTensorType([None, 32]))], target_opset=TARGET)))


def every_type():
    """Each type in and out unchanged: [N], [N,1], [N,2] and [N,2,3] in turn."""
    types = [("bool", T.BOOL), ("int8", T.INT8), ("int16", T.INT16), ("int32", T.INT32), ("int64", T.INT64), ("uint8", T.UINT8),
             ("uint16", T.UINT16), ("uint32", T.UINT32), ("uint64", T.UINT64), ("float16", T.FLOAT16), ("float32", T.FLOAT),
             ("float64", T.DOUBLE), ("string", T.STRING)]
    shapes = [["N"], ["N", 1], ["N", 2], ["N", 2, 3]]
    nodes, ins, outs = [], [], []
    for i, (name, t) in enumerate(types):
        shape = shapes[i % 4]
        nodes.append(helper.make_node("Identity", [name], [name + "_out"]))
        ins.append((name, t, shape))
        outs.append((name + "_out", t, shape))
    graph("types", nodes, ins, outs)


def half():
    """Half floats through arithmetic."""
    graph("half", [helper.make_node("Mul", ["x", "two"], ["y"])], [("x", T.FLOAT16, ["N", 3])], [("y", T.FLOAT16, ["N", 3])],
          [("two", np.array([2], np.float16))])


def integers():
    """Integers and bools together: several inputs, several outputs."""
    graph("integers", [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Greater", ["a", "b"], ["more"]),
        helper.make_node("And", ["more", "flag"], ["both"]),
    ], [("a", T.INT64, ["N"]), ("b", T.INT64, ["N"]), ("flag", T.BOOL, ["N"])],
        [("sum", T.INT64, ["N"]), ("both", T.BOOL, ["N"])])


def fixed(name, n):
    """The first dimension is fixed: runs have n rows, padded. Each answer is its row's sum and maximum."""
    graph(name, [helper.make_node("MatMul", ["x", "ones"], ["sum"]), helper.make_node("ReduceMax", ["x", "axis"], ["most"], keepdims=0)],
          [("x", T.FLOAT, [n, 3])], [("sum", T.FLOAT, [n, 1]), ("most", T.FLOAT, [n])],
          [("ones", np.ones((3, 1), np.float32)), ("axis", np.array([1], np.int64))])


def unbatched():
    """A one-row model whose output has no dimension of rows."""
    graph("unbatched", [helper.make_node("Squeeze", ["x", "axis"], ["y"])], [("x", T.FLOAT, [1, 3])], [("y", T.FLOAT, [3])],
          [("axis", np.array([0], np.int64))])


def text():
    """Strings in, strings and integers out."""
    graph("text", [
        helper.make_node("LabelEncoder", ["s"], ["code"], domain="ai.onnx.ml", keys_strings=["", "ja", "nein", "naïve 川"], values_int64s=[1, 2, 3, 4], default_int64=-1),
        helper.make_node("Identity", ["s"], ["echo"]),
    ], [("s", T.STRING, ["N", 1])], [("code", T.INT64, ["N", 1]), ("echo", T.STRING, ["N", 1])])


def normalizer():
    """An operator that needs a system locale."""
    graph("normalizer", [helper.make_node("StringNormalizer", ["s"], ["y"], case_change_action="LOWER", is_case_sensitive=0)],
          [("s", T.STRING, ["N"])], [("y", T.STRING, ["N"])])


def constant():
    """An output of rank 0 that no input reaches: given to every row."""
    graph("constant", [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["half"], ["threshold"])],
          [("x", T.FLOAT, ["N", 2])], [("y", T.FLOAT, ["N", 2]), ("threshold", T.FLOAT, [])], [("half", np.array(0.5, np.float32))])


def mixing():
    """An output of rank 0 over all rows: refused."""
    graph("mixing", [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0)],
          [("x", T.FLOAT, ["N", 2])], [("y", T.FLOAT, ["N", 2]), ("mean", T.FLOAT, [])])


def neighbours():
    """Each row's answer depends on the whole batch: nothing but the probe can tell (batch_variant)."""
    graph("neighbours", [helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1), helper.make_node("Sub", ["x", "mean"], ["y"])],
          [("x", T.FLOAT, ["N", 2])], [("y", T.FLOAT, ["N", 2])], [("axis", np.array([0], np.int64))])


def shrinking():
    """Fewer rows out than in: refused."""
    graph("shrinking", [helper.make_node("Slice", ["x", "from", "to"], ["y"])], [("x", T.FLOAT, ["N", 2])], [("y", T.FLOAT, ["M", 2])],
          [("from", np.array([1], np.int64)), ("to", np.array([1 << 40], np.int64))])


def sequence():
    """A sequence that is no ZipMap: refused."""
    out = helper.make_value_info("y", helper.make_sequence_type_proto(helper.make_tensor_type_proto(T.FLOAT, ["N", 2])))
    g = helper.make_graph([helper.make_node("SequenceConstruct", ["x"], ["y"])], "sequence",
                          [helper.make_tensor_value_info("x", T.FLOAT, ["N", 2])], [out])
    save("sequence", helper.make_model(g, opset_imports=OPSETS, ir_version=9))


def embedding():
    """An index outside the table fails the run: the probe must find rows that do not."""
    graph("embedding", [helper.make_node("Gather", ["table", "id"], ["vector"])], [("id", T.INT64, ["N"])], [("vector", T.FLOAT, ["N", 4])],
          [("table", rows(8, 4).astype(np.float32))])


def open_width():
    """The number of features is not in the file: model.yaml must name them."""
    graph("open", [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", T.FLOAT, ["N", "F"])], [("y", T.FLOAT, ["N", 2])],
          [("w", rows(3, 2).astype(np.float32))])


def external():
    """Weights in a file beside the model."""
    g = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])], "external",
                          [helper.make_tensor_value_info("x", T.FLOAT, ["N", 64])], [helper.make_tensor_value_info("y", T.FLOAT, ["N", 16])],
                          [numpy_helper.from_array(rows(64, 16).astype(np.float32), "w"), numpy_helper.from_array(rows(1, 16, 5)[0].astype(np.float32), "b")])
    folder = HERE / "external"
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").unlink(missing_ok=True)
    m = helper.make_model(g, opset_imports=OPSETS, ir_version=9)
    onnx.save(m, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").chmod(0o644)


def custom():
    """An operator that no ONNX Runtime has: refused."""
    g = helper.make_graph([helper.make_node("Mystery", ["x"], ["y"], domain="com.example")], "custom",
                          [helper.make_tensor_value_info("x", T.FLOAT, ["N", 2])], [helper.make_tensor_value_info("y", T.FLOAT, ["N", 2])])
    m = helper.make_model(g, opset_imports=[*OPSETS, helper.make_opsetid("com.example", 1)], ir_version=9)
    (HERE / "custom.onnx").write_bytes(m.SerializeToString(deterministic=True))


def main():
    linear()
    zipmap()
    columns()
    forest()
    lightgbm_model()
    double()
    mlp()
    every_type()
    half()
    integers()
    fixed("fixed4", 4)
    fixed("fixed1", 1)
    unbatched()
    text()
    normalizer()
    constant()
    mixing()
    neighbours()
    shrinking()
    sequence()
    embedding()
    open_width()
    external()
    custom()


if __name__ == "__main__":
    main()
