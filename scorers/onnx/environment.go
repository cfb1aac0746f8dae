package onnx

import (
	"runtime"
	"strings"

	"golang.org/x/sys/cpu"

	"github.com/leatstream/leat/scorers/onnx/ortlib"
)

// RuntimeName is the runtime that Probed and records name.
const RuntimeName = "onnxruntime " + ortlib.Version

// CPUFeatures names the CPU features by which ONNX Runtime chooses its kernels, in a fixed order: two machines with the
// same string run the same code ("amd64 avx avx2 fma f16c avx512f"). Records and jobs keep it (SEMANTICS 6).
func CPUFeatures() string {
	var have []string
	for _, f := range features() {
		if f.has {
			have = append(have, f.name)
		}
	}
	return strings.Join(append([]string{runtime.GOARCH}, have...), " ")
}

// Environment is what decides bits: equal strings, equal bits.
func Environment() string { return RuntimeName + "; " + runtime.GOOS + "; " + CPUFeatures() }

type feature struct {
	name string
	has  bool
}

func features() []feature {
	if runtime.GOARCH == "arm64" {
		a := &cpu.ARM64
		return []feature{{"asimd", a.HasASIMD}, {"fphp", a.HasFPHP}, {"asimdhp", a.HasASIMDHP}, {"asimddp", a.HasASIMDDP},
			{"asimdfhm", a.HasASIMDFHM}, {"i8mm", a.HasI8MM}, {"sve", a.HasSVE}, {"sve2", a.HasSVE2}}
	}
	x := &cpu.X86
	return []feature{{"sse41", x.HasSSE41}, {"avx", x.HasAVX}, {"avx2", x.HasAVX2}, {"fma", x.HasFMA},
		{"avxvnni", x.HasAVXVNNI}, {"avx512f", x.HasAVX512F}, {"avx512bw", x.HasAVX512BW}, {"avx512dq", x.HasAVX512DQ},
		{"avx512vl", x.HasAVX512VL}, {"avx512vnni", x.HasAVX512VNNI}, {"avx512bf16", x.HasAVX512BF16},
		{"amxtile", x.HasAMXTile}, {"amxint8", x.HasAMXInt8}, {"amxbf16", x.HasAMXBF16}}
}
