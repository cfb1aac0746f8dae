// Package peers sets up and runs what users build today in Python, so that integration/bench can set it beside Leat in
// the same run: a responder on nats-py, and FastAPI behind uvicorn, both scoring the same model with ONNX Runtime and
// recording nothing. Their sources are beside this file and embedded; their packages, at pinned versions, go into a
// virtual environment in a folder of its own, which holds the shared library of ONNX Runtime too.
//
// The peers never see the product, and end with the process that started them.
package peers
