package main

import "testing"

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1073741824": 1 << 30, "256KiB": 256 << 10, "8GiB": 8 << 30, "2 MiB": 2 << 20} {
		var n int64
		if err := (byteSize{&n}).Set(text); err != nil || n != want {
			t.Errorf("%s: %d, %v", text, n, err)
		}
	}
	for _, text := range []string{"", "-1", "8GB", "1.5MiB", "9999999TiB", "x"} {
		var n int64
		if err := (byteSize{&n}).Set(text); err == nil {
			t.Errorf("%q gives %d", text, n)
		}
	}
	n := int64(3 << 20)
	if s := (byteSize{&n}).String(); s != "3MiB" {
		t.Errorf("3 MiB is written as %s", s)
	}
}
