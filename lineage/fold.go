package lineage

// folder finds records that were there before, and request ids that came with another input. It keeps the first 16
// bytes of ids and the first 8 of digests in two generations: when the younger one is full, the older one is forgotten.
// So a duplicate is found if no more than limit records lie between it and its first, and surely never invented (two of
// 2^64 records would have to meet).
type folder struct {
	limit            int
	young, old       map[[16]byte]struct{}
	requests, before map[[16]byte][8]byte // request_key -> input digest
}

func newFolder(limit int) *folder {
	return &folder{limit: limit, young: map[[16]byte]struct{}{}, requests: map[[16]byte][8]byte{}}
}

// seen reports whether the record was there before, and remembers it.
func (f *folder) seen(id [32]byte) bool {
	k := [16]byte(id[:16])
	if _, ok := f.young[k]; ok {
		return true
	}
	_, ok := f.old[k]
	if len(f.young) >= f.limit {
		f.young, f.old = make(map[[16]byte]struct{}, f.limit/4), f.young
	}
	f.young[k] = struct{}{}
	return ok
}

// reused reports whether the request key came with another digest first, and remembers the first.
func (f *folder) reused(key, digest [32]byte) bool {
	k, d := [16]byte(key[:16]), [8]byte(digest[:8])
	first, ok := f.requests[k]
	if ok {
		return first != d
	}
	if first, ok = f.before[k]; !ok {
		first = d
	}
	if len(f.requests) >= f.limit {
		f.requests, f.before = make(map[[16]byte][8]byte, f.limit/4), f.requests
	}
	f.requests[k] = first
	return first != d
}
