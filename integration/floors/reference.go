package floors

import (
	"fmt"
	"time"
)

// Reference is what the field notes found a well written floor to reach. Exactly one of the two is set.
type Reference struct {
	Latency time.Duration // p50, alone
	Rate    float64       // a second
}

// The references, measured on two cores of 2.5 GHz. A rate given as a range stands here as its geometric mean.
var (
	RefEcho1   = Reference{Latency: 63 * time.Microsecond}
	RefEcho64  = Reference{Rate: 57_000} // 44 to 75 k/s
	RefEcho256 = Reference{Rate: 57_000}
	RefAppend  = Reference{Latency: 67 * time.Microsecond}
	RefONNX1   = Reference{Latency: 33 * time.Microsecond}
	RefONNX    = Reference{Rate: 220_000} // rows: 2 threads at 8 to 10 us a row
	RefHTTP1   = Reference{Latency: 66 * time.Microsecond}
	RefHTTP64  = Reference{Rate: 54_000}
	// RefTopics is a replay at 235 k/s and a publish at 110 k/s that share the cores.
	RefTopics = Reference{Rate: 75_000}
	// Over Kafka, of a broker with G1 and C2 on the same cores. An echo is 1.16 to 1.44 ms alone and 8.3 to 18.7 k/s of 64.
	RefKafkaEcho1  = Reference{Latency: 1260 * time.Microsecond}
	RefKafkaEcho64 = Reference{Rate: 12_500}
	RefKafkaAppend = Reference{Latency: 330 * time.Microsecond}
	// RefKafkaTopics is a replay at 400 k/s and a produce at 271 k/s that share the cores.
	RefKafkaTopics = Reference{Rate: 160_000}
	RefKafkaFetch  = Reference{Rate: 400_000}
	// refSyncs is how many synced appends a second fit into a second beside each other: 5 to 10 k/s where one takes 180 us.
	refSyncs = 7_000.0
	refSync  = 113 * time.Microsecond // 180 us synced less 67 us unsynced: the sync itself
)

// RefAppendSynced is an append and the sync of this disk.
func RefAppendSynced(sync time.Duration) Reference {
	return Reference{Latency: RefAppend.Latency + max(sync, refSync)}
}

// RefTopicsSynced scales the field notes' synced publishing by how slow this disk's sync is.
func RefTopicsSynced(sync time.Duration) Reference {
	return Reference{Rate: refSyncs * refSync.Seconds() / max(sync, refSync).Seconds()}
}

// Scale says how many times slower this machine is now than the one of the field notes, by the NATS echo of the run.
type Scale struct {
	Latency float64 // 1 alone
	Rate    float64 // 64 in flight
}

// NewScale takes the echo's p50 alone and its rate at 64 in flight.
func NewScale(p50 time.Duration, rate float64) Scale {
	return Scale{Latency: float64(p50) / float64(RefEcho1.Latency), Rate: RefEcho64.Rate / rate}
}

// Expected is the reference on this machine now: nanoseconds or a rate.
func (r Reference) Expected(s Scale) float64 {
	if r.Latency > 0 {
		return float64(r.Latency) * s.Latency
	}
	return r.Rate / s.Rate
}

// Check is an error when a floor, in nanoseconds or as a rate, is slower than half of what it should reach: then it is
// no floor, and what stands on it is flattered.
func (r Reference) Check(name string, value float64, s Scale) error {
	want := r.Expected(s)
	switch {
	case r.Latency > 0 && value > 2*want:
		return fmt.Errorf("floors: %s: %v is more than twice the %v that it should take here", name,
			time.Duration(value).Round(100*time.Nanosecond), time.Duration(want).Round(100*time.Nanosecond))
	case r.Rate > 0 && value < want/2:
		return fmt.Errorf("floors: %s: %.0f/s is less than half of the %.0f/s that it should reach here", name, value, want)
	}
	return nil
}
