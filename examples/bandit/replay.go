package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// lateBy is how many days pass until what came of a day is known.
const lateBy = 2

// said is a feedback, as the server takes it.
type said struct {
	Pipeline  string  `json:"pipeline"`
	RequestID string  `json:"request_id"`
	Row       int     `json:"row"`
	Label     bool    `json:"label"`
	Reward    float64 `json:"reward"`
}

// result is what the days were worth.
type result struct {
	dates []string
	rows  []int       // of each day
	arms  [][]float64 // by arm and day: the sum of the rewards that it would have had
	got   [][]float64 // by seed and day
	chose [][]float64 // by seed and arm: rewards that the bandit has counted
}

// replay goes through the days: all pipelines are asked about one, then they are told of the day before the last.
func replay(ctx context.Context, s *server, names []string, days []day) (*result, error) {
	r := &result{arms: make([][]float64, len(arms)), got: make([][]float64, len(names)), chose: make([][]float64, len(names))}
	told := make([][][]said, len(names)) // by seed and day
	known := 0                           // departures of which the bandits have been told
	for t := range days {
		d := &days[t]
		if t >= lateBy {
			known += len(days[t-lateBy].late)
		}
		r.dates, r.rows = append(r.dates, d.date), append(r.rows, len(d.late))
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(max(8, len(names)))
		for a, name := range arms {
			g.Go(func() error {
				p, err := s.ask(ctx, name, name+"-"+d.date, d)
				r.arms[a] = append(r.arms[a], total(p, d, nil))
				return err
			})
		}
		for i, name := range names {
			g.Go(func() error {
				id := name + "-" + d.date
				p, err := s.ask(ctx, name, id, d)
				if err != nil {
					return err
				}
				var fs []said
				r.got[i] = append(r.got[i], total(p, d, func(row int, reward float64) {
					fs = append(fs, said{Pipeline: name, RequestID: id, Row: row, Label: d.late[row], Reward: reward})
				}))
				told[i] = append(told[i], shuffled(fs, uint64(i), uint64(t)))
				if t < lateBy {
					return nil
				}
				return s.tell(ctx, name, told[i][t-lateBy], known)
			})
		}
		if err := g.Wait(); err != nil {
			return nil, fmt.Errorf("%s: %w", d.date, err)
		}
	}
	for i, name := range names {
		var err error
		if r.chose[i], err = s.counted(ctx, name); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// total adds up the rewards of a day: 1 - (p - late)² for each departure.
func total(p []float64, d *day, each func(row int, reward float64)) (sum float64) {
	for row, v := range p {
		off := v
		if d.late[row] {
			off = 1 - v
		}
		reward := 1 - off*off
		sum += reward
		if each != nil {
			each(row, reward)
		}
	}
	return sum
}

// shuffled brings what is said of a day into another order, and says one in ten twice.
func shuffled(fs []said, seed, day uint64) []said {
	rnd := rand.New(rand.NewPCG(seed, day))
	fs = append(fs, fs[:len(fs)/10]...)
	rnd.Shuffle(len(fs), func(i, j int) { fs[i], fs[j] = fs[j], fs[i] })
	return fs
}

// tell sends feedback, and waits until the bandit decides by so many rewards in all. In real life nobody waits; here a day
// passes in milliseconds.
func (s *server) tell(ctx context.Context, pipeline string, fs []said, rewards int) error {
	body, err := json.Marshal(fs)
	if err != nil {
		return err
	}
	if _, err := s.do(ctx, http.MethodPost, "/v1/feedback", plainJSON, body, nil); err != nil {
		return err
	}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		counted, err := s.counted(ctx, pipeline)
		if err != nil {
			return err
		}
		if sum(counted) >= float64(rewards) {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// counted returns how many rewards of each arm the bandit decides by.
func (s *server) counted(ctx context.Context, pipeline string) ([]float64, error) {
	body, err := s.do(ctx, http.MethodGet, "/v1/pipelines/"+pipeline+"/bandits", "", nil, nil)
	if err != nil {
		return nil, err
	}
	var status struct {
		Bandits []struct {
			Arms []struct{ Rewards float64 }
		}
	}
	if err := json.Unmarshal(body, &status); err != nil {
		return nil, err
	}
	var counted []float64
	for _, a := range status.Bandits[0].Arms {
		counted = append(counted, a.Rewards)
	}
	return counted, nil
}

func sum(vs []float64) (all float64) {
	for _, v := range vs {
		all += v
	}
	return all
}
