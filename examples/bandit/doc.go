// Command bandit replays the departures of examples/flights, day by day, through pipelines whose bandit chooses among three
// models, and tells each pipeline what came of its days: how close the probability that it gave was to the truth. It
// prints how much was lost against the best model of the three, known only afterwards, and against choosing blindly.
//
//	leat serve                                  # in a terminal of its own
//	go run ./examples/bandit                    # 20 pipelines, each with its own luck
//	go run ./examples/bandit -seeds 3 -per-day 50 -days 30
//
// It speaks HTTP alone, as any program could: rows go out and answers come back as Arrow streams, rewards as JSON.
//
// The three: the regression and the boosted trees of the flights, and a forest that answers before the aircraft leaves,
// when nobody knows yet how late it will: would that be good enough? A reward is 1 - (p - late)², so the mean reward is 1
// less the Brier score. What became of a day is told two days later, in no order, and one in ten says so twice.
package main
