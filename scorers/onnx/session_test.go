package onnx

import (
	"errors"
	"strings"
	"testing"
)

func TestReason(t *testing.T) {
	for in, want := range map[string]string{
		"Error running network: Non-zero status code returned while running Gather node. Name:'g' Status Message: indices element out of data bounds, idx=7":                                                              "indices element out of data bounds, idx=7",
		"Error creating C session: Load model failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:181 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&) Unsupported model IR version: 99": "Load model failed:Unsupported model IR version: 99",
		"Exception during initialization: /src/core/string_normalizer.cc:235 onnxruntime::StringNormalizer::Locale::Locale(const std::string&)::<lambda()> Failed to construct locale\nPlease, install":                   "Exception during initialization: Failed to construct locale Please, install",
		"/src/onnxruntime/core/x.h:77 onnxruntime::common::Status onnxruntime::Pool<T>::Run(const X*) const [with T = long int] bad\tvalue":                                                                               "bad value",
		"plain": "plain",
	} {
		if got := reason(errors.New(in)); got != want {
			t.Errorf("%q\ngave %q\nwant %q", in, got, want)
		}
	}
	if got := reason(errors.New(strings.Repeat("ü", 400))); len(got) > 300 || strings.ContainsRune(got, 0xfffd) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
