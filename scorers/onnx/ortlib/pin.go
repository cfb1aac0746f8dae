package ortlib

import "runtime"

// Version is the one version of ONNX Runtime that is opened. Another one gives other last bits.
const Version = "1.27.0"

// pin is the shared library of one platform, as the wheel onnxruntime-1.27.0 for it holds it.
type pin struct {
	platform string // pip's name of the platform
	member   string // path inside the wheel
	file     string // name in the cache
	sha256   string // of the library itself: one library is in the wheels of every Python version
}

// pins are digests of the library inside the wheels whose own SHA-256 are, for Python 3.11: x86_64 e4f7b0e9...36f4,
// aarch64 2eb08332...70ef, macOS 8ba14a38...0016. Several public lock files hold the same three.
var pins = map[string]pin{
	"linux/amd64": {
		platform: "manylinux_2_28_x86_64",
		member:   "onnxruntime/capi/libonnxruntime.so." + Version,
		file:     "libonnxruntime.so." + Version,
		sha256:   "b5c9d4f124d24707f514dad926dc181820807178855df1c528e3addb2dd0e6f7",
	},
	"linux/arm64": {
		platform: "manylinux_2_28_aarch64",
		member:   "onnxruntime/capi/libonnxruntime.so." + Version,
		file:     "libonnxruntime.so." + Version,
		sha256:   "9275ef52956228686ae47b0219f67476a1148505084bdc5571e7bf1bf69b11f2",
	},
	"darwin/arm64": {
		platform: "macosx_14_0_arm64",
		member:   "onnxruntime/capi/libonnxruntime." + Version + ".dylib",
		file:     "libonnxruntime." + Version + ".dylib",
		sha256:   "3d832017d60a8a1e078f7051ea3601374453f5451ffe95b70db1131aa7d37e06",
	},
}

// pinned returns the pin of this platform.
func pinned() (pin, bool) {
	p, ok := pins[runtime.GOOS+"/"+runtime.GOARCH]
	return p, ok
}
