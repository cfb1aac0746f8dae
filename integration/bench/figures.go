package main

// A measure is one number of one sample: "echo/64:rate". A sample gives all its numbers at once.
//
// The names of samples: floor or side, then the setting, then the requests in flight.

// bound says in which direction a ratio is good.
type bound int

const (
	atLeast bound = iota
	atMost
	shown // printed without a target
)

// figure is a row of the report.
type figure struct {
	name   string
	unit   string
	value  string // measure
	floor  floor
	bound  bound
	target float64 // of value / floor
}

// floor is one number made of several measures of a round: their sum, or the least of them.
type floor struct {
	measures []string
	least    bool
}

func sum(measures ...string) floor   { return floor{measures, false} }
func least(measures ...string) floor { return floor{measures, true} }

const (
	micros    = "us"
	perSecond = "1/s"
	rowsPer   = "rows/s"
	mebibytes = "MiB"
	microsRow = "us/row"
	nanosRow  = "ns/row"
	rowCount  = "rows"
)

// figures are what Leat promises about its speed, in the order of the report.
var figures = []figure{
	{"nats alone p50, unsynced", micros, "leat/nats/unsynced/1:p50", sum("echo/1:p50", "append/unsynced:p50", "onnx/1:p50"), atMost, 1.4},
	{"nats alone p50, synced", micros, "leat/nats/synced/1:p50", sum("echo/1:p50", "append/synced:p50", "onnx/1:p50"), atMost, 1.4},
	{"nats 64 in flight, unsynced", perSecond, "leat/nats/unsynced/64:rate", sum("echo/64:rate"), atLeast, 0.4},
	{"nats 64 in flight, synced", perSecond, "leat/nats/synced/64:rate", sum("echo/64:rate"), atLeast, 0.25},
	{"nats 256 in flight, unsynced", perSecond, "leat/nats/unsynced/256:rate", sum("echo/256:rate"), atLeast, 0.4},
	{"nats 256 in flight, synced", perSecond, "leat/nats/synced/256:rate", sum("echo/256:rate"), atLeast, 0.25},
	{"nats 64 in flight over nats-py", perSecond, "leat/nats/unsynced/64:rate", sum("natspy/64:rate"), atLeast, 1.2},
	{"nats 64 in flight p50 over nats-py", micros, "leat/nats/unsynced/64:p50", sum("natspy/64:p50"), atMost, 1},
	{"nats 64 by nats.go's Request, unsynced", perSecond, "leat/requests/unsynced/64:rate", sum("echo/requests/64:rate"), shown, 0},
	{"nats 64 pipelined, unsynced", perSecond, "leat/pipelined/unsynced/64:rate", sum("echo/pipelined/64:rate"), shown, 0},
	{"http 64 in flight, unsynced", perSecond, "leat/http/unsynced/64:rate", sum("httpecho/64:rate"), atLeast, 0.4},
	{"http 64 in flight, synced", perSecond, "leat/http/synced/64:rate", sum("httpecho/64:rate"), atLeast, 0.4},
	{"http alone p50 over net/http", micros, "leat/http/unsynced/1:p50", sum("httpecho/1:p50"), shown, 0},
	{"http alone p50 over fastapi, unsynced", micros, "leat/http/unsynced/1:p50", sum("fastapi/1:p50"), atMost, 0.8},
	{"http alone p50 over fastapi, synced", micros, "leat/http/synced/1:p50", sum("fastapi/1:p50"), atMost, 1.5},
	{"http 64 in flight over fastapi", perSecond, "leat/http/unsynced/64:rate", sum("fastapi/64:rate"), atLeast, 3},
	{"topic to topic, unsynced", rowsPer, "leat/topics/unsynced:rate", sum("topics/unsynced:rate"), atLeast, 0.3},
	{"topic to topic, synced", rowsPer, "leat/topics/synced:rate", sum("topics/synced:rate"), atLeast, 0.3},
	{"bulk parquet to parquet", rowsPer, "leat/bulk:rate", sum("onnx/bulk:rate"), atLeast, 0.85},
	{"kafka alone p50", micros, "leat/kafka/1:p50", sum("kafka/echo/1:p50", "kafka/append:p50"), atMost, 1.3},
	{"kafka 64 in flight", perSecond, "leat/kafka/64:rate", sum("kafka/echo/64:rate"), atLeast, 0.6},
	{"kafka 256 in flight", perSecond, "leat/kafka/256:rate", sum("kafka/echo/256:rate"), atLeast, 0.6},
	{"kafka topic to topic, at least once", rowsPer, "leat/kafka/topics/at_least_once:rate", sum("kafka/topics/loop:rate"), atLeast, 0.4},
	{"kafka topic to topic, at least once, over all partitions at once", rowsPer, "leat/kafka/topics/at_least_once:rate", sum("kafka/topics/parallel:rate"), shown, 0},
	{"kafka topic to topic, exactly once over at least once", rowsPer, "leat/kafka/topics/exactly_once:rate", sum("leat/kafka/topics/at_least_once:rate"), atLeast, 0.85},
	{"kafka replay to parquet", rowsPer, "leat/kafka/replay:rate", least("kafka/topics/fetch:rate", "onnx/bulk:rate"), atLeast, 0.8},
	{"split over two models over one model, alone p50", micros, "leat/route/split/1:p50", sum("leat/route/single/1:p50"), atMost, 1 / 0.95},
	{"split over two models over one model, 64 in flight", perSecond, "leat/route/split/64:rate", sum("leat/route/single/64:rate"), atLeast, 0.95},
	{"split by key over one model, 1,000 rows a request", rowsPer, "leat/route/keyed/rows:rate", sum("leat/route/single/rows:rate"), shown, 0},
	{"split over two models over one model, 1,000 rows a request", rowsPer, "leat/route/split/rows:rate", sum("leat/route/single/rows:rate"), shown, 0},
	{"one shadow in the process over none, 64 in flight", perSecond, "leat/route/shadow/64:rate", sum("leat/route/single/64:rate"), atLeast, 0.95},
	{"one shadow in the process over none, 64 in flight p99", micros, "leat/route/shadow/64:p99", sum("leat/route/single/64:p99"), atMost, 1.1},
	{"rows that the shadow shed, of those it was offered", rowCount, "leat/route/shadow/64:shed", sum("leat/route/shadow/64:offered"), shown, 0},
	{"ensemble of three over a third of one model, 64 in flight", perSecond, "leat/route/ensemble/64:rate", sum("leat/route/single/64:third"), atLeast, 0.85},
	{"cascade where 80 % stop early over 1.2 of one model", microsRow, "leat/route/cascade/rows:cost", sum("leat/route/single/rows:cost", "leat/route/single/rows:rest"), atMost, 1.15},
	{"deciding by split", nanosRow, "decide/split:row", sum("decide/split:budget"), atMost, 1},
	{"deciding by switch", nanosRow, "decide/switch:row", sum("decide/switch:budget"), atMost, 1},
	{"deciding by epsilon-greedy", nanosRow, "decide/epsilon-greedy:row", sum("decide/epsilon-greedy:budget"), atMost, 1},
	{"deciding by UCB1", nanosRow, "decide/ucb1:row", sum("decide/ucb1:budget"), atMost, 1},
	{"deciding by Thompson", nanosRow, "decide/thompson:row", sum("decide/thompson:budget"), shown, 0},
	{"deciding by LinUCB", nanosRow, "decide/linucb:row", sum("decide/linucb:budget"), shown, 0},
	{"deciding by LinThompson, 500 draws for each arm", nanosRow, "decide/lin-thompson:row", sum("decide/lin-thompson:budget"), shown, 0},
	{"a lookup's hit, and its two columns", nanosRow, "decide/lookup:row", sum("decide/lookup:budget"), atMost, 1},
	{"resident after 1 M scores over after 10 k", mebibytes, "leat/memory:after", sum("leat/memory:before"), atMost, 1.1},
}
