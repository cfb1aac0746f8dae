package ortlib

import "runtime"

// Version is the one version of ONNX Runtime that is opened. Another one gives other last bits, and 1.26 and 1.27 wrong
// answers: a random forest of scikit-learn with two classes says -p and p there (microsoft/onnxruntime#28557).
const Version = "1.28.0"

// pin is the shared library of one platform, as the wheel onnxruntime-1.28.0 for it holds it.
type pin struct {
	platform string // pip's name of the platform
	member   string // path inside the wheel
	file     string // name in the cache
	sha256   string // of the library itself: one library is in the wheels of every Python version
}

// pins are digests of the library inside the wheels whose own SHA-256 are, for Python 3.11: x86_64 a166b78e...8bb5,
// aarch64 8d66f9ce...517f, macOS f5c5daab...b410.
var pins = map[string]pin{
	"linux/amd64": {
		platform: "manylinux_2_28_x86_64",
		member:   "onnxruntime/capi/libonnxruntime.so." + Version,
		file:     "libonnxruntime.so." + Version,
		sha256:   "aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083",
	},
	"linux/arm64": {
		platform: "manylinux_2_28_aarch64",
		member:   "onnxruntime/capi/libonnxruntime.so." + Version,
		file:     "libonnxruntime.so." + Version,
		sha256:   "23a37c2994bc273e1d59a4f49af6cba5bf1cfbc29f04907ec27df375aba50a7d",
	},
	"darwin/arm64": {
		platform: "macosx_14_0_arm64",
		member:   "onnxruntime/capi/libonnxruntime." + Version + ".dylib",
		file:     "libonnxruntime." + Version + ".dylib",
		sha256:   "99909e99214e31fe2296c9f7fae5abc2eaf0145342efe8b0a6ed82e9ddb0a0a0",
	},
}

// pinned returns the pin of this platform.
func pinned() (pin, bool) {
	p, ok := pins[runtime.GOOS+"/"+runtime.GOARCH]
	return p, ok
}
